"""Changing lines of a text whose other bytes are not ours to touch.

A configuration file may hold any bytes, end its lines with CRLF and lack the last newline. Lines that no rule
changes come out byte for byte as they went in.
"""

from collections.abc import Callable, Iterable


def decoded(content: bytes) -> str:
    """`content` as text; bytes that are not UTF-8 survive the way back through `encoded`."""
    return content.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """The bytes that `decoded` made `text` of."""
    return text.encode("utf-8", "surrogateescape")


def bodies(content: bytes) -> tuple[str, ...]:
    """The lines of `content` without their ends."""
    return tuple(body for body, _ in _split(content))


def rewritten(content: bytes, rule: Callable[[str], str | None]) -> bytes:
    """`content` with `rule` applied to every line without its end; None drops the line."""
    result = []
    for body, end in _split(content):
        new = rule(body)
        if new is not None:
            result.append(new + end)
    return encoded("".join(result))


def with_added(content: bytes, added: Iterable[str]) -> bytes:
    """`content` with lines at its end, which end as the other lines of the file do."""
    lines = tuple(added)
    if not lines:
        return content
    end = "\r\n" if b"\r\n" in content else "\n"
    text = decoded(content)
    if text and not text.endswith("\n"):
        return encoded(text + "".join(end + line for line in lines))
    return encoded(text + "".join(line + end for line in lines))


def _split(content: bytes) -> list[tuple[str, str]]:
    """Pairs of a line and its end. Only newline ends a line: a form feed does not, unlike in splitlines."""
    pairs = []
    for line in decoded(content).split("\n"):
        carriage = line.endswith("\r")
        pairs.append((line.removesuffix("\r"), "\r\n" if carriage else "\n"))
    body, end = pairs.pop()
    # What follows the last newline has no end of its own; nothing follows it in a well-formed file.
    last = end.removesuffix("\n")
    return [*pairs, (body, last)] if body or last else pairs
