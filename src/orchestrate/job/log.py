"""The log of a job: every command line of ours, every command that it ran on a host, steps, notes, errors.

Bounded: a log that has grown to 8 MiB becomes `log.1`, in the place of the one before.
"""

import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from blocksync import own_files
from blocksync.errors import Failed
from blocksync.foreign import shown

FILE = "log"
MOST_BYTES = 8 << 20
_MOST_CHARACTERS = 4000
"""Of one line."""
_PURPOSE = "a job's log"
_APPEND = os.O_WRONLY | os.O_APPEND


class JobLog:
    """An open log, until the process ends. Whoever holds the job opens it."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        """Raises Usage where something else than a regular file has its name, Failed where it cannot be
        written.
        """
        self._path = folder / FILE
        self._most = most_bytes
        self._fd = self._opened()

    @property
    def place(self) -> str:
        """As `voice.Log.place`."""
        return str(self._path)

    def write(self, event: str, text: str) -> None:
        """As `voice.Log.write`. A log on a full disk stops no migration."""
        head = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {os.getpid()} {event}: "
        lines = "".join(f"{head}{shown(line, _MOST_CHARACTERS)}\n" for line in text.splitlines())
        with suppress(OSError, Failed):
            self._make_room()
            # In one piece, as far as the file system allows: several threads write.
            os.write(self._fd, lines.encode(errors="backslashreplace"))

    def _opened(self) -> int:
        if own_files.require_regular(self._path, _PURPOSE) is None:
            own_files.replace(self._path, b"", _PURPOSE)
        try:
            with own_files.opened(self._path, _APPEND, _PURPOSE) as fd:
                if stat.S_IMODE(os.fstat(fd).st_mode) != own_files.OWN_MODE:
                    os.fchmod(fd, own_files.OWN_MODE)
                return os.dup(fd)
        except OSError as error:
            raise Failed(self._path, f"cannot be written: {error.strerror}", "move it away") from error

    def _make_room(self) -> None:
        if os.fstat(self._fd).st_size < self._most:
            return
        older = self._path.with_name(f"{FILE}.1")
        own_files.require_regular(older, _PURPOSE)
        self._path.replace(older)
        full, self._fd = self._fd, self._opened()
        os.close(full)
