"""How fast this machine reads, hashes, compares and writes, with blocks of one size, in bytes a second."""

import mmap
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from blocksync._copy import hash_blocks, mark_differences
from blocksync.devices.device import Opened
from blocksync.digests.hashes import XXH3
from blocksync.errors import Failed

DIGEST = XXH3.size
PAGE = 4096
LONG_ENOUGH = 0.2
# What the engine handles at a time, so that hashing and comparing find their bytes in the same cache.
AT_ONCE = 512 * 1024
ARENA = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Ground:
    """Where writes are measured: [base, base + size) of a device held open, in bytes.

    `borrowed` ground is a target: whatever is written there is what was read there.
    """

    opened: Opened
    base: int
    size: int
    borrowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Bytes a second with blocks of one size. `scan` is what reads come to as the engine asks for them: not
    below 512 KiB at a time. `write` is None where writes were not measured.
    """

    read: float
    scan: float
    hash: float
    compare: float
    write: float | None


def scanning(source: Opened) -> float:
    """Sequential reads as the engine asks for them when blocks are small: many at once."""
    return reading(source, min(AT_ONCE, source.device.size // PAGE * PAGE))


def measure(source: Opened, ground: Ground | None, block: int, scan: float) -> Rates:
    """Measure each for a fraction of a second; `scan` is what `scanning` told. Raises Failed when a device
    fails.
    """
    read = reading(source, block)
    return Rates(
        read=read,
        scan=scan if block <= AT_ONCE else read,
        hash=hashing(block),
        compare=comparing(block),
        write=None if ground is None or ground.size < block else writing(ground, block),
    )


def reading(source: Opened, block: int) -> float:
    """Sequential reads of `block` bytes (a multiple of 4096), one after the other, from a random place on."""
    blocks = max(1, source.device.size // block)
    first = random.randrange(blocks)
    with mmap.mmap(-1, block) as memory:

        def read(number: int) -> int:
            at = (first + number) % blocks * block
            try:
                return os.preadv(source.fd, [memory], at)
            except OSError as error:
                raise _failed(source, f"cannot be read at byte {at}: {error.strerror}") from error

        return _repeated(read)


def hashing(block: int) -> float:
    """XXH3-128 of blocks in memory, by one processor."""
    length = max(AT_ONCE, block)
    data = os.urandom(length)
    digests = bytearray(length // block * DIGEST)

    def hash_once(number: int) -> int:
        hash_blocks(data, length, block, digests, 0)
        return length

    return _repeated(hash_once)


def comparing(block: int) -> float:
    """Equal blocks in memory, by one processor."""
    length = max(AT_ONCE, block)
    left = os.urandom(length)
    right = bytes(bytearray(left))
    bits = bytearray(length // block // 8 + 1)

    def compare_once(number: int) -> int:
        mark_differences(left, right, length, block, bits, 0)
        return length

    return _repeated(compare_once)


def writing(ground: Ground, block: int) -> float:
    """Single blocks at random places, and the flush that makes them durable: the best of three."""
    count = 1
    with mmap.mmap(-1, max(ARENA, block)) as arena:
        # Few writes at first: a flush of many takes minutes on a slow disk.
        while _written(ground, arena, count, block) < LONG_ENOUGH and 2 * count * block <= ARENA:
            count *= 2
        return count * block / min(_written(ground, arena, count, block) for _ in range(3))


def _written(ground: Ground, arena: mmap.mmap, count: int, block: int) -> float:
    """Seconds that `count` blocks took."""
    blocks = max(1, ground.size // block)
    places = [ground.base + random.randrange(blocks) * block for _ in range(count)]
    _fill(ground, arena, places, block)
    started = time.perf_counter()
    _write(ground, arena, places, block)
    return time.perf_counter() - started


def _fill(ground: Ground, arena: mmap.mmap, places: list[int], block: int) -> None:
    with memoryview(arena) as view:
        for number, at in enumerate(places):
            piece = view[number * block : (number + 1) * block]
            if not ground.borrowed:
                piece[:] = random.randbytes(block)
            elif os.preadv(ground.opened.fd, [piece], at) != block:
                raise _failed(ground.opened, f"cannot be read at byte {at}")
            piece.release()


def _write(ground: Ground, arena: mmap.mmap, places: list[int], block: int) -> None:
    with memoryview(arena) as view:
        for number, at in enumerate(places):
            with view[number * block : (number + 1) * block] as piece:
                try:
                    count = os.pwrite(ground.opened.fd, piece, at)
                except OSError as error:
                    raise _failed(
                        ground.opened, f"cannot be written at byte {at}: {error.strerror}"
                    ) from error
            if count != block:
                raise _failed(ground.opened, f"took {count} of {block} bytes at byte {at}")
    try:
        os.fdatasync(ground.opened.fd)
    except OSError as error:
        raise _failed(ground.opened, f"did not make its writes durable: {error.strerror}") from error


def _repeated(step: Callable[[int], int]) -> float:
    """Bytes a second of a step, repeated until the clock says something."""
    number = total = 0
    started = time.perf_counter()
    while (seconds := time.perf_counter() - started) < LONG_ENOUGH:
        total += step(number)
        number += 1
    return total / seconds


def _failed(side: Opened, cause: str) -> Failed:
    return Failed(side.device.path, cause, "check the device and `dmesg`")
