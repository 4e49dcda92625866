"""See which pages of a device change: hash it twice, some seconds apart."""

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from blocksync._copy import hash_blocks, mark_differences
from blocksync.devices.device import Opened
from blocksync.errors import Failed, Interrupted
from blocksync.interruption import Stop
from blocksync.progress import Progress, Report
from blocksync.tuning.rates import DIGEST, PAGE

# Chunks of 4 MiB; of a device larger than this they are spread evenly, so that their digests fit in memory.
CHUNK = 4 * 2**20
WATCHED = 64 * 2**30


@dataclass(frozen=True, slots=True)
class Changed:
    """One bit a 4 KiB page that was watched (bit i of byte i//8), and how many bytes were watched."""

    bits: bytearray
    size: int


def changed_pages(source: Opened, interval: float, stop: Stop, progress: Report | None = None) -> Changed:
    """Read the source twice, the second time `interval` seconds after the first ended.

    Raises Failed when it cannot be read, Interrupted once `stop` was asked for.
    """
    size = source.device.size
    starts = range(0, size, CHUNK * -(-size // WATCHED))
    watched = sum(min(CHUNK, size - start) for start in starts)
    pages = -(-watched // PAGE)
    before, bits = bytearray(pages * DIGEST), bytearray(pages // 8 + 1)
    started, changed = time.monotonic(), 0

    def show(done: int) -> None:
        if progress is not None:
            seconds = time.monotonic() - started
            progress(_moment(done, 2 * watched, changed * PAGE, seconds))

    for number, now in enumerate(_digests(source, starts, stop)):
        first = number * (CHUNK // PAGE) * DIGEST
        before[first : first + len(now)] = now
        show(min((number + 1) * CHUNK, watched))
    _wait(interval, stop)
    for number, now in enumerate(_digests(source, starts, stop)):
        first = number * (CHUNK // PAGE)
        with memoryview(before)[first * DIGEST :] as then:
            changed += mark_differences(then, now, len(now), DIGEST, bits, first)
        show(watched + min((number + 1) * CHUNK, watched))
    return Changed(bits, watched)


def raise_if(stop: Stop) -> None:
    """Raises Interrupted once somebody asked to stop."""
    if stop:
        raise Interrupted("tune", "stopped; nothing was kept", "run it again")


def _digests(source: Opened, starts: range, stop: Stop) -> Iterator[memoryview]:
    """The digests of the pages of each chunk, in a buffer that is used again for the next."""
    digests = bytearray(CHUNK // PAGE * DIGEST)
    with mmap.mmap(-1, CHUNK) as memory:
        for start in starts:
            raise_if(stop)
            need = min(CHUNK, source.device.size - start)
            _read(source, memory, start, need)
            pages = hash_blocks(memory, need, PAGE, digests, 0)
            yield memoryview(digests)[: pages * DIGEST]


def _read(source: Opened, memory: mmap.mmap, start: int, need: int) -> None:
    # Direct I/O reads whole sectors; a device has them whole, a file ends where it ends.
    ask = -(-need // source.align) * source.align
    got = 0
    with memoryview(memory) as view:
        while got < need:
            try:
                with view[got:ask] as rest:
                    count = os.preadv(source.fd, [rest], start + got)
            except OSError as error:
                raise _failed(source, start + got, error.strerror or str(error)) from error
            if count == 0:
                raise _failed(source, start + got, "it ends there")
            got += count


def _failed(source: Opened, at: int, cause: str) -> Failed:
    return Failed(source.device.path, f"cannot be read at byte {at}: {cause}", "check it and `dmesg`")


def _wait(seconds: float, stop: Stop) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        raise_if(stop)
        time.sleep(min(left, 0.1))


def _moment(done: int, total: int, changed: int, seconds: float) -> Progress:
    return Progress(
        phase="watch",
        bytes_done=done,
        bytes_looked_at=done,
        bytes_total=total,
        bytes_changed=changed,
        bytes_written=0,
        bytes_read=done,
        bytes_moved=done,
        seconds=seconds,
    )
