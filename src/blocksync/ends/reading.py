"""Segments of a device read and hashed, for either end: into memory that one thread owns and reuses."""

import errno
import mmap
import os
import threading

from blocksync._copy import find_changed, hash_blocks
from blocksync.devices.device import Opened
from blocksync.digests.hashes import XXH3, Hash
from blocksync.errors import CHECK, Failed, telling
from blocksync.wire.frames import Terms

# What is read at a time in search of a change: still in a processor's cache when it is hashed. Direct reads
# are not, and better large.
PIECE = 256 * 2**10


class Desk:
    """One thread's own memory: a segment of data, page-aligned as direct I/O needs it, and its digests."""

    def __init__(self, terms: Terms) -> None:
        self.data = memoryview(mmap.mmap(-1, max(terms.segment, mmap.PAGESIZE)))
        self.digests = memoryview(bytearray(terms.blocks(terms.segment) * terms.digest_size))


class Hasher:
    """Digests of blocks, many at a time."""

    def __init__(self, terms: Terms, kind: Hash) -> None:
        self._terms = terms
        self._kind = kind
        self.is_native = kind is XXH3
        self._zeros = kind.digest(bytes(min(terms.block_size, terms.size)))
        tail = terms.size % terms.block_size
        self._zero_tail = kind.digest(bytes(tail)) if tail else self._zeros

    def hash(self, data: memoryview, into: memoryview) -> None:
        """The digest of each block of `data`, one after the other into `into`."""
        if self.is_native:
            hash_blocks(data, len(data), self._terms.block_size, into, 0)
            return
        width = self._terms.digest_size
        for number, at in enumerate(range(0, len(data), self._terms.block_size)):
            digest = self._kind.digest(data[at : at + self._terms.block_size])
            into[number * width : (number + 1) * width] = digest

    def of_zeros(self, offset: int, size: int) -> bytes:
        """The digests of a range of blocks that are all zero."""
        blocks = self._terms.blocks(size)
        if offset + size == self._terms.size:
            return self._zeros * (blocks - 1) + self._zero_tail
        return self._zeros * blocks


class SegmentReader:
    """Reads ranges of a device that is held open; `base` is where the range of the pass starts on it."""

    def __init__(self, opened: Opened, terms: Terms, base: int = 0) -> None:
        self._opened = opened
        self._terms = terms
        self._base = base
        piece = terms.segment if opened.is_direct else PIECE
        self._piece = max(piece // terms.block_size, 1) * terms.block_size
        self.zeros = memoryview(mmap.mmap(-1, max(terms.segment, mmap.PAGESIZE)))
        self._sparse = not opened.device.is_block
        self._lock = threading.Lock()
        self._hole = self._data = (0, 0)
        self._end = base + terms.size
        self._read = 0

    @property
    def bytes_read(self) -> int:
        return self._read

    def read(self, desk: Desk, offset: int, size: int) -> memoryview:
        """The bytes of a range; those of a hole are not read. Raises Failed."""
        if self.in_hole(offset, size):
            return self.zeros[:size]
        got = 0
        # Direct I/O reads whole sectors; a device has them whole, a file ends where it ends.
        ask = -(-size // self._opened.align) * self._opened.align
        while got < size:
            at = self._base + offset + got
            with telling(self._opened.device.path, f"cannot be read at byte {at}"):
                count = os.preadv(self._opened.fd, [desk.data[got:ask]], at)
            if got + count < size:
                # A direct read must go on from an aligned offset.
                count -= count % self._opened.align
            if count == 0:
                path = self._opened.device.path
                raise Failed(path, f"cannot be read at byte {at}: the device ends there", CHECK)
            got += count
        with self._lock:
            self._read += size
        return desk.data[:size]

    def find_changed(self, desk: Desk, offset: int, end: int, expected: memoryview) -> tuple[int, int]:
        """Read a range of whole blocks up to the first that is not as `expected` by its XXH3, holes and all.

        Returns where to go on, and how many bytes from there on are on the desk, with their digests: none at
        the end, and -1 before what cannot be read.
        """
        start, size = find_changed(
            self._opened.fd,
            self._base,
            offset,
            end,
            align=self._opened.align,
            block_size=self._terms.block_size,
            piece=self._piece,
            data=desk.data,
            digests=desk.digests,
            expected=expected,
        )
        with self._lock:
            self._read += start + max(size, 0) - offset
        return start, size

    def data_until(self, offset: int, end: int) -> int:
        """Where a range begins to have segments that are holes, at `end` at the latest."""
        if not self._sparse:
            return end
        while offset < end and not self.in_hole(offset, size := min(self._terms.segment, end - offset)):
            offset += size
        return offset

    def in_hole(self, offset: int, size: int) -> bool:
        """Whether the file system says that a whole range is a hole."""
        first, last = self._base + offset, self._base + offset + size
        with self._lock:
            if not self._sparse:
                return False
            if not (self._hole[0] <= first < self._hole[1] or self._data[0] <= first < self._data[1]):
                self._look(first)
            return self._hole[0] <= first and last <= self._hole[1]

    def _look(self, first: int) -> None:
        try:
            data = os.lseek(self._opened.fd, first, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                # The file system cannot tell: everything counts as data.
                self._sparse = False
                return
            data = self._end
        if data > first:
            self._hole = (first, data)
        else:
            self._data = (first, os.lseek(self._opened.fd, data, os.SEEK_HOLE))
