"""Waiting for what a domain's serial console says, in the file that libvirt logs it to."""

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import Failed
from blocksync.progress import Tell, untold
from orchestrate.kvm.console_text import PIECE, WINDOW, Lookout, last_lines, told_end
from orchestrate.kvm.machine import FATAL, compiled

_POLL_SECONDS = 0.2
_ALIVE_SECONDS = 5.0
_LINES_SHOWN = 10
_PIECES = 16


@dataclass(frozen=True, slots=True)
class ConsoleLog:
    """A console's log file and where the present start begins in it, in bytes.

    virtlogd begins the file anew when it has grown to 2 MiB, and keeps the one before as FILE.0.
    """

    path: Path
    start: int

    def wait_for(self, pattern: str, seconds: float, alive: Callable[[], bool], tell: Tell = untold) -> None:
        """Wait until the regular expression comes. `alive` says whether the domain still runs; `tell` is told
        what the console says meanwhile.

        Raises `Failed`, with the last lines, when it does not come in time, the domain ends, or something
        comes after which a boot does not go on; Usage when `pattern` is no regular expression.
        """
        signs = [compiled(pattern), *(compiled(sign.pattern) for sign in FATAL)]
        lookout = Lookout()
        deadline = time.monotonic() + seconds
        ask_again = time.monotonic() + _ALIVE_SECONDS
        with closing(_News(self.path, self.start)) as reading:
            while not self._came(reading, lookout, signs):
                tell(lookout.last_line(), of=seconds)
                if time.monotonic() > deadline:
                    cause = f"{pattern!r} did not come within {seconds:g} s"
                    raise self._failed(reading, cause, "look at the guest")
                if time.monotonic() > ask_again:
                    if not alive():
                        cause = f"the domain ended before {pattern!r} came"
                        raise self._failed(reading, cause, "look at its log")
                    ask_again = time.monotonic() + _ALIVE_SECONDS
                if reading.is_idle:
                    time.sleep(_POLL_SECONDS)

    def _came(self, reading: "_News", lookout: Lookout, signs: Sequence[re.Pattern[bytes]]) -> bool:
        """Whether the first of `signs` is in what is new. Raises `Failed` for any other."""
        # A guest may print faster than it is read, and time has to be looked at too.
        for _ in range(_PIECES):
            if not (said := reading.more()):
                return False
            lookout.hear(said)
            if (found := lookout.find(signs)) is None:
                continue
            if found[0] == 0:
                return True
            sign = FATAL[found[0] - 1]
            raise self._failed(reading, sign.meaning, sign.way_out)
        return False

    def _failed(self, reading: "_News", cause: str, way_out: str) -> Failed:
        end = told_end(last_lines(reading.end, _LINES_SHOWN))
        return Failed(self.path, f"{cause}{end}", way_out)


@dataclass(slots=True)
class _News:
    """What is new in a log that is rotated meanwhile, piece by piece."""

    path: Path
    offset: int
    end: bytes = b""
    is_idle: bool = False
    _fd: int = -1

    def more(self) -> bytes:
        """The next bytes, at most a piece; nothing when there are none now: then it `is_idle`."""
        self.is_idle = True
        if self._fd < 0 and not self._open():
            return b""
        said = self._read()
        if not said and self._is_rotated():
            # What was written between the last look and the rotation.
            said = self._read()
            if not said:
                self.close()
                self.offset = 0
                return self.more()
        self.is_idle = not said
        self.end = (self.end + said)[-WINDOW:]
        return said

    def close(self) -> None:
        """Let the file go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        before = self.path.with_name(f"{self.path.name}.0")
        # The present start began in the file before, if this one does not reach there.
        if self.offset and _size(self.path) < self.offset <= _size(before):
            self._fd = _opened(before)
        else:
            self._fd = _opened(self.path)
            if self._fd >= 0 and os.fstat(self._fd).st_size < self.offset:
                self.offset = 0
        return self._fd >= 0

    def _read(self) -> bytes:
        if os.fstat(self._fd).st_size < self.offset:
            # Cut where it is.
            self.offset = 0
        said = os.pread(self._fd, PIECE, self.offset)
        self.offset += len(said)
        return said

    def _is_rotated(self) -> bool:
        mine = os.fstat(self._fd)
        try:
            present = self.path.stat()
        except FileNotFoundError:
            # In the middle of it, or nobody logs any more.
            return False
        return (mine.st_dev, mine.st_ino) != (present.st_dev, present.st_ino)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _opened(path: Path) -> int:
    """A descriptor of a log that is there, -1 where none is. Nobody is waited for."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise Failed(path, f"cannot be read: {error.strerror}", "look at the guest's console") from error
