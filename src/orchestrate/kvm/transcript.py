"""All that a console says, in a file of bounded size: its beginning and its end."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from blocksync import own_files
from blocksync.errors import telling

LARGEST = 64 * 2**20
"""Bytes of the file."""
HEAD = LARGEST // 4
_TAIL = LARGEST // 4


class Transcript:
    """A new file that is written to its end. Of what is too much for it the middle is cut; a line says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        own_files.require_regular(path, "a console's log")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._telling():
            self._fd = os.open(path, flags, own_files.OWN_MODE)
        self._size = 0
        self._cut = 0
        self._mark = 0

    def write(self, said: bytes) -> None:
        """Add to it. Raises Failed."""
        with self._telling():
            own_files.write_fully(self._fd, said, self._size)
            self._size += len(said)
            if self._size > LARGEST:
                self._cut_the_middle()

    def close(self) -> None:
        """Write no more. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def end(self, most: int) -> bytes:
        """The last bytes, at most `most`; also after it was closed. Raises Failed."""
        with self._telling(), self._path.open("rb") as file:
            file.seek(max(0, self._size - most))
            return file.read(most)

    def _cut_the_middle(self) -> None:
        tail = os.pread(self._fd, _TAIL, self._size - _TAIL)
        self._cut += self._size - HEAD - self._mark - len(tail)
        mark = f"\n[xen2kvm: {self._cut} bytes are left out here]\n".encode()
        self._mark = len(mark)
        own_files.write_fully(self._fd, mark + tail, HEAD)
        self._size = HEAD + len(mark) + len(tail)
        os.ftruncate(self._fd, self._size)

    def _telling(self) -> AbstractContextManager[None]:
        return telling(self._path, "the console's log cannot be kept", "make room there")
