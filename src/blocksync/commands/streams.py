"""Standard output and error that break nothing: a pass is not torn because nobody reads what it says.

A stream may be closed from the start, its reader may go away, its disk may be full, its encoding may lack
a letter. What is done goes on then, and whether the result was delivered is asked once, at the end.
"""

import errno
import io
import os
import sys
from typing import Any, TextIO

_STREAMS = ("stdin", "stdout", "stderr")


class _Lasting(io.FileIO):
    """A descriptor whose first failure to write is kept, and after which writes go nowhere."""

    fault: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write what can be written at once; all of it, once nothing can."""
        while self.fault is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.fault = error
                break
            # None: somebody who shares the terminal or the pipe made it non-blocking.
            if written is not None:
                return written
            self._wait()
        return len(data)

    def _wait(self) -> None:
        from select import select  # noqa: PLC0415

        select([], [self.fileno()], [])


def make_lasting() -> None:
    """Put streams of this kind in the place of standard output and error, once."""
    _fill_the_gaps()
    if not isinstance(getattr(sys.stdout, "buffer", None), _Buffered):
        sys.stdout = _lasting(sys.stdout, 1)
        sys.stderr = _lasting(sys.stderr, 2)


def fault() -> OSError | None:
    """Why what was printed on standard output did not arrive; None where it did, where nobody wanted it
    (standard output is closed), or where its reader left before the end.
    """
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    found = buffer.raw.fault if isinstance(buffer, _Buffered) else None
    return None if found is None or found.errno == errno.EPIPE else found


class _Buffered(io.BufferedWriter):
    """The buffer in front of a descriptor of this kind."""

    raw: _Lasting


def _fill_the_gaps() -> None:
    """Descriptors 0 to 2 that are closed lead nowhere: the next file that is opened, a disk for one, would
    else get the number, and what a program prints would be written to it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) < len(_STREAMS):
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123


def _lasting(stream: "TextIO | None", number: int) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123
    stream.flush()
    raw = _Lasting(number, "w", closefd=False)
    return io.TextIOWrapper(
        _Buffered(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
    )
