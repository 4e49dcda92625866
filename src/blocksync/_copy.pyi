"""Types of the native core; its docstrings are in `_copy.pyx`."""

from collections.abc import Callable
from typing import NamedTuple

from typing_extensions import Buffer

class Fault(NamedTuple):
    step: str
    offset: int
    errno: int

class Counters(NamedTuple):
    done: int
    source_read: int
    target_read: int
    changed: int
    written: int
    zeroed: int
    learned: int

class Copy:
    def __init__(
        self,
        *,
        source_fd: int,
        target_fd: int,
        tail_fd: int,
        size: int,
        block_size: int,
        segment_size: int,
        changed: Buffer,
        gate: Callable[[], None],
        target_offset: int = 0,
        source_align: int = 1,
        target_align: int = 1,
        source_holes: bool = False,
        target_holes: bool = False,
        compare: bool = True,
        dry_run: bool = False,
        digests: Buffer | None = None,
        hasher: Callable[[memoryview], bytes] | None = None,
        digest_size: int = 16,
        extents: Buffer | None = None,
        bytes_per_second: int = 0,
    ) -> None: ...
    def work(self) -> None: ...
    def stop(self) -> None: ...
    def counters(self) -> Counters: ...
    def fault(self) -> Fault | None: ...

def start_writeback(fd: int) -> None: ...
def xxh3_128(data: Buffer) -> bytes: ...
def count_runs(bits: Buffer, blocks: int) -> int: ...
def mark_differences(
    left: Buffer, right: Buffer, length: int, block_size: int, bits: Buffer, first: int
) -> int: ...
def hash_blocks(data: Buffer, length: int, block_size: int, digests: Buffer, first: int) -> int: ...
def find_changed(
    fd: int,
    base: int,
    offset: int,
    end: int,
    *,
    align: int,
    block_size: int,
    piece: int,
    data: Buffer,
    digests: Buffer,
    expected: Buffer,
) -> tuple[int, int]: ...
