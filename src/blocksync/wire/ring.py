"""Memory for frames that have arrived and wait for the disk: so many bytes, whatever the frames' sizes."""

import mmap
import threading
from collections import deque
from dataclasses import dataclass

from blocksync.ends.thread_group import Stopped


@dataclass(slots=True)
class Room:
    """A frame's part of the memory. `data` begins at a page, as direct I/O needs it."""

    data: memoryview
    digests: memoryview
    end: int
    over: bool = False


class Ring:
    """Lends rooms in the order of arrival, and takes them back in any order. Each lies in one piece.

    Places are counted on without end; a place modulo the size is where it is in the memory.
    """

    def __init__(self, size: int) -> None:
        self._size = _whole_pages(size)
        self._memory = memoryview(mmap.mmap(-1, self._size))
        self._changed = threading.Condition()
        self._lent: deque[Room] = deque()
        # From the start of the oldest room that is lent up to the end of the newest.
        self._first = 0
        self._end = 0
        self._closed = False

    @staticmethod
    def size_of(data: int, digests: int) -> int:
        """What a room takes up."""
        return _whole_pages(data + digests)

    def lend(self, data: int, digests: int) -> Room:
        """A room for so many bytes, once there is one. Raises Stopped when the ring is closed."""
        length = self.size_of(data, digests)
        if length > self._size:
            raise ValueError(f"a room of {length} bytes of {self._size}")
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(length))
            if self._closed:
                raise Stopped
            start = self._start(length)
            self._end = start + length
            at = start % self._size
            piece = self._memory[at : at + data + digests]
            room = Room(piece[:data], piece[data:], self._end)
            self._lent.append(room)
        return room

    def take_back(self, room: Room) -> None:
        with self._changed:
            room.over = True
            while self._lent and self._lent[0].over:
                self._first = self._lent.popleft().end
            if not self._lent:
                # The same memory again as long as nothing waits: it is still in a processor's cache.
                self._first = self._end = 0
            self._changed.notify()

    def close(self) -> None:
        """Let whoever waits for a room give up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, length: int) -> bool:
        return self._start(length) + length - self._first <= self._size

    def _start(self, length: int) -> int:
        """Where a room would begin: the next place, or the start of the memory when its end is too near."""
        left = self._size - self._end % self._size
        return self._end if length <= left else self._end + left


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
