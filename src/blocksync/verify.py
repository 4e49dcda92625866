"""Prove that a range of a target equals a source: BLAKE3 over both, and every byte compared."""

import errno
import mmap
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from blocksync._copy import mark_differences
from blocksync.devices import device as devices
from blocksync.devices import guards
from blocksync.devices.device import Device, Opened
from blocksync.errors import CHECK, Failed, Interrupted, Refused, telling
from blocksync.extents import Extents
from blocksync.interruption import stop_on_signals
from blocksync.progress import Progress, Report

CHUNK = 4 * 2**20
GRAIN = 4096
ZEROS = memoryview(bytes(CHUNK))


@dataclass(frozen=True, slots=True)
class Comparison:
    """BLAKE3 of each side's range in hexadecimal, as `b3sum` prints it, and where they differ (4 KiB grain,
    offsets into the source).

    Between two hosts, `hash` says which digests were compared, of blocks of 64 KiB, which is then the grain;
    the roots are BLAKE3 of all of them in order, and the source's is empty when the sides differ.
    """

    source_root: str
    target_root: str
    differing: Extents
    hash: str = "blake3"

    @property
    def equal(self) -> bool:
        return self.source_root == self.target_root and not self.differing


def compare(
    source: Path,
    target: Path,
    *,
    target_offset: int = 0,
    size: int | None = None,
    direct: bool = False,
    cache: bool = False,
    progress: Report | None = None,
) -> Comparison:
    """Read both sides completely and compare them; sizes and offsets in bytes, `size` None the whole source.

    Block devices are read with direct I/O (unless `cache`), regular files too with `direct`. Raises Usage,
    Refused (guards `size`, `alignment`, `same`), Failed when a side cannot be read, Interrupted after SIGINT
    or SIGTERM.
    """
    left, right = devices.measure(source), devices.measure(target)
    length = left.size if size is None else size
    if length > left.size:
        raise Refused(
            left.path, f"has {left.size} bytes, not {length}", "give a smaller --size", guard="size"
        )
    guards.range_fits(right, target_offset, length)
    guards.not_the_source(left, right, target_offset, length)
    with ExitStack() as stack:
        opened = []
        for side, base in ((left, 0), (right, target_offset)):
            past_cache = devices.goes_direct(side, base, direct=direct, cache=cache)
            opened.append(stack.enter_context(devices.open_source(side, direct=past_cache)))
        sides = (_Side(opened[0], 0, length), _Side(opened[1], target_offset, length))
        return _compare(sides, length, progress)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some bytes of one side; `hole` says that the file system knew them to be zeros: nothing was read."""

    data: memoryview
    hole: bool


class _Side:
    """One side, read chunk by chunk."""

    def __init__(self, opened: Opened, base: int, length: int) -> None:
        self._opened = opened
        self._base = base
        self._length = length
        # Two buffers: one is hashed and compared while the next chunk is read into the other.
        self._buffers = (mmap.mmap(-1, CHUNK), mmap.mmap(-1, CHUNK))

    @property
    def device(self) -> Device:
        return self._opened.device

    def read(self, start: int) -> _Chunk:
        """The chunk at `start`, in a buffer that stays as it is until the chunk after the next is read."""
        need = min(CHUNK, self._length - start)
        if self._is_hole(self._base + start, need):
            return _Chunk(ZEROS[:need], hole=True)
        # Direct I/O reads whole sectors; a device has them whole, a file ends where it ends.
        ask = -(-need // self._opened.align) * self._opened.align
        view = memoryview(self._buffers[start // CHUNK % 2])
        got = 0
        while got < need:
            offset = self._base + start + got
            with telling(self._opened.device.path, f"cannot be read at byte {offset}"):
                count = os.preadv(self._opened.fd, [view[got:ask]], offset)
            if count == 0:
                raise Failed(
                    self._opened.device.path, f"cannot be read at byte {offset}: it ends there", CHECK
                )
            got += count
        return _Chunk(view[:need], hole=False)

    def _is_hole(self, offset: int, length: int) -> bool:
        if self._opened.device.is_block:
            return False
        try:
            return os.lseek(self._opened.fd, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            # No data from there on; any other answer means that the file system cannot tell.
            return error.errno == errno.ENXIO and offset + length <= os.fstat(self._opened.fd).st_size


class _Roots:
    """BLAKE3 of both sides. As long as every byte was found equal, one hash is the hash of both."""

    def __init__(self) -> None:
        self._left = blake3(max_threads=blake3.AUTO)
        self._right: blake3 | None = None

    def update(self, left: memoryview, right: memoryview, *, equal: bool) -> None:
        if self._right is None and not equal:
            self._right = self._left.copy()
        self._left.update(left)
        if self._right is not None:
            self._right.update(right)

    def hexdigests(self) -> tuple[str, str]:
        left = self._left.hexdigest()
        return left, left if self._right is None else self._right.hexdigest()


def _compare(sides: tuple[_Side, _Side], length: int, progress: Report | None) -> Comparison:
    started = time.monotonic()
    bits = bytearray(-(-length // GRAIN // 8) + 1)
    roots = _Roots()
    differing = read = 0
    to_read = devices.data_size(sides[0].device)
    with stop_on_signals() as stop, ThreadPoolExecutor(2) as pool:
        for start, left, right in _chunks(sides, length, pool):
            if stop:
                raise Interrupted("verify", f"stopped after {start} of {length} bytes", "run it again")
            found = 0
            if not (left.hole and right.hole):
                read += len(left.data)
                found = mark_differences(left.data, right.data, len(left.data), GRAIN, bits, start // GRAIN)
            roots.update(left.data, right.data, equal=not found)
            differing += found
            if progress is not None:
                done = start + len(left.data)
                progress(
                    Progress(
                        phase="verify",
                        bytes_done=done,
                        bytes_looked_at=done,
                        bytes_total=length,
                        bytes_changed=differing * GRAIN,
                        bytes_written=0,
                        bytes_read=read,
                        bytes_moved=read,
                        bytes_to_read=to_read,
                        seconds=time.monotonic() - started,
                    )
                )
    return Comparison(*roots.hexdigests(), Extents.of_blocks(bits, GRAIN, length))


def _chunks(
    sides: tuple[_Side, _Side], length: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[int, _Chunk, _Chunk]]:
    """Both sides' chunks in order; the next ones are read while the caller looks at these."""
    ahead: list[Future[_Chunk]] = []
    for start in range(0, length, CHUNK):
        reads = ahead or [pool.submit(side.read, start) for side in sides]
        left, right = (read.result() for read in reads)
        after = start + CHUNK
        ahead = [pool.submit(side.read, after) for side in sides] if after < length else []
        yield start, left, right
