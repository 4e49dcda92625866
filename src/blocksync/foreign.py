"""Text that a guest, another host or a file gave: what of it may be shown to a person or be kept in a log.

A terminal obeys control characters, and a line end inside a text makes a line that nobody printed. So every
such text passes one of the functions here before it goes into an error, a table, a log or JSON.
"""

MOST = 400
"""Characters of one line that are shown, unless somebody asks for more."""

_STANDS_FOR = "?"
_CUT = " ..."


def shown(text: str, most: int = MOST) -> str:
    """`text` as one line of at most `most` characters: what no terminal prints becomes a question mark.

    Not printable are control characters, line ends among them, characters that change the direction of
    writing, and halves of surrogate pairs (how Python shows bytes that are not UTF-8).
    """
    line = "".join(each if each.isprintable() else _STANDS_FOR for each in text[: most + 1])
    return line if len(line) <= most else line[:most] + _CUT


def shown_bytes(raw: bytes, most: int = MOST) -> str:
    """The same of bytes: their words, whatever white space was between them."""
    # A character takes four bytes at most.
    return shown(" ".join(raw[: 4 * most + 4].decode(errors="replace").split()), most)


def shown_lines(text: str, count: int, most: int = MOST) -> list[str]:
    """The last `count` lines of `text` that are not empty, each as `shown`."""
    # A line may be longer than anybody wants to see: look at no more of the text than can be shown.
    lines = text[-8 * count * most :].splitlines()
    return [shown(line, most) for line in (each.rstrip() for each in lines) if line][-count:]


def without_control(text: str, most: int) -> str:
    """A text that may have several lines, such as an error's cause: everything unprintable but line ends
    becomes a question mark. The last line of defence: its parts were `shown` where they came in.
    """
    return "\n".join(shown(line, most) for line in text[: most + 1].split("\n"))
