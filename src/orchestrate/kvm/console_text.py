"""What a serial console says: looked through as it comes, and its end as lines that may be shown.

A guest says what it wants, as long as it wants: nothing here keeps or scans more than a window.
"""

import re
from collections.abc import Sequence

from blocksync.foreign import MOST, shown_lines

WINDOW = 64 * 1024
"""Bytes that are kept of what no match has used up."""
PIECE = 4096
"""Bytes that are heard at a time, at most: an expression may need time that is quadratic in what it scans."""
# A match lies within the newest bytes; scanning all of a long boot for each read is quadratic as well.
_OVERLAP = 4096
_LINES = 20

# A control sequence, a string for the terminal, any other escape: with what belongs to it, as far as it came.
# Each escape character is taken, so that what is left of two of them never makes a third.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\r\n]{0,256}(?:\x07|\x9c|\x1b\\)?"
    r"|\x1b[ -/]{0,8}[0-~]?"
)


class Lookout:
    """Looks for regular expressions in bytes that come piece by piece."""

    def __init__(self) -> None:
        self._unused = bytearray()
        # Up to here nothing was found; another question begins at the start again.
        self._looked = 0

    def begin(self) -> None:
        """Another question: what came since the last match is looked through again, its newest bytes."""
        self._looked = min(self._looked, max(0, len(self._unused) - 2 * _OVERLAP))

    def hear(self, said: bytes) -> None:
        """More of what is said, at most a piece."""
        self._unused += said
        if (surplus := len(self._unused) - WINDOW) > 0:
            del self._unused[:surplus]
            self._looked = max(0, self._looked - surplus)

    def find(self, signs: Sequence[re.Pattern[bytes]]) -> tuple[int, bytes] | None:
        """Which of `signs` came first, and its text; what is before it, and itself, is used up."""
        start = max(0, self._looked - _OVERLAP)
        spans = [span for number, sign in enumerate(signs) if (span := self._span(sign, start, number))]
        self._looked = len(self._unused)
        if not spans:
            return None
        first, number, last = min(spans)
        text = bytes(self._unused[first:last])
        del self._unused[:last]
        self._looked = 0
        return number, text

    def _span(self, sign: re.Pattern[bytes], start: int, number: int) -> tuple[int, int, int] | None:
        # A match itself would hold on to the buffer, which could not be shortened then.
        found = sign.search(self._unused, start)
        return None if found is None else (found.start(), number, found.end())

    def last_line(self) -> str:
        """The newest line, as it may be shown."""
        return next(iter(last_lines(bytes(self._unused[-4 * MOST :]), 1)), "")


def last_lines(said: bytes, count: int = _LINES) -> list[str]:
    """The last `count` lines that are not empty, without the terminal's escapes, as they may be shown."""
    text = _ESCAPE.sub("", said[-WINDOW:].decode(errors="replace"))
    # A carriage return alone begins a line anew, a backspace takes a character back: neither is one.
    return shown_lines(text.replace("\r", "\n").replace("\0", ""), count)


def told_end(lines: Sequence[str]) -> str:
    """The last lines of a console as part of an error's cause, from a line end on."""
    return "\n  last lines of the console:\n" + (
        "\n".join(f"    {line}" for line in lines) or "    (nothing)"
    )
