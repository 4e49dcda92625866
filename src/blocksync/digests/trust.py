"""A digest file in the hands of a pass: believed or not before it, committed after it.

The target may be on another host: its stamp and bytes come from there then.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blocksync import own_files
from blocksync.devices import device as devices
from blocksync.devices import target as targets
from blocksync.devices.device import Opened
from blocksync.devices.identity import is_same
from blocksync.digests import digest_file, history
from blocksync.digests.digest_file import HEADER_SIZE, Binding, BlockState, Digests, FileHeader, Untrusted
from blocksync.digests.history import UNKNOWN, Trust, Written
from blocksync.errors import Usage, telling

Read = Callable[[int, int], bytes]


def check_path(path: Path, *sides: Path) -> None:
    """Raises Usage unless a digest file can be there; `sides` are what of the pass is on this host."""
    digest_file.check_path(path)
    if any(is_same(path, side) for side in sides):
        raise Usage(path, "is the source or the target itself", "name another digest file")


def believed(
    path: Path, binding: Binding, spans: list[tuple[int, int]] | None, stamp: str, read: Read
) -> Digests:
    """The digests of a target range as far as they can be believed, now that the target has this `stamp`.

    `spans` are the parts of the range that the pass is about, `read(offset, length)` gives its bytes. What a
    pass left that was killed has no stamp to tell strangers' writes by: more blocks are looked at then.
    """
    past = history.path_of(path, binding.target)
    own_files.require_regular(past, history.WHAT)
    table = digest_file.load(path, binding, spans)
    trust = Trust.LIKELY
    if table.is_settled:
        trust = history.explains(past, table.header.stamp, stamp, binding.target_offset, binding.size)
        if trust is Trust.NONE:
            table.forget("is stale: something else wrote to the target since, or the machine was restarted")
    if table.trusted:
        table.spot_check(read, thorough=trust is Trust.LIKELY)
    return table


def still_true(path: Path, target: Path, *, offset: int, size: int) -> bool:
    """Whether a digest file of this range of a target here would be believed by a pass of the same source.

    Reads a few blocks of the target. Raises Usage, Failed.
    """
    return _here(path, target, offset, size, []) is not None


def give_up(path: Path, target: Path, spans: list[tuple[int, int]], *, offset: int, size: int) -> None:
    """Say durably in a digest file of this range of a target here that `spans` of it, (offset, length) in
    bytes, are about to be written otherwise than by a pass. What it says of the rest stays believed; a file
    that is not is removed. Raises Usage, Failed.
    """
    table = _here(path, target, offset, size, spans)
    if table is not None:
        table.mark_in_progress()
        return
    with telling(path, "cannot be removed", "see who may write to its folder"):
        if digest_file.is_one(path):
            path.unlink()
        devices.sync_folder(path.parent)


def _here(path: Path, target: Path, offset: int, size: int, spans: list[tuple[int, int]]) -> Digests | None:
    """What a digest file says of this range of a target here, None if no pass would believe it."""
    try:
        with own_files.opened(path, os.O_RDONLY, digest_file.WHAT) as fd:
            binding = FileHeader.unpack(os.pread(fd, HEADER_SIZE, 0)).binding
    except (OSError, Usage, Untrusted):
        return None
    device = targets.find(target)
    if device is None or binding.target != device.identity:
        return None
    if (binding.target_offset, binding.size) != (offset, size):
        return None
    with devices.open_source(device, direct=device.is_block) as opened:
        stamp = history.stamp(opened)
        table = believed(
            path, binding, spans, stamp, lambda at, length: devices.read_opened(opened, offset + at, length)
        )
    return table if table.trusted else None


def begin(table: Digests, stamp: str) -> None:
    """Mark the digest file of a pass, and the history of its target, before its first write to that target,
    whose stamp is `stamp`. Raises Failed.
    """
    binding = table.header.binding
    _append(table, Written(stamp, UNKNOWN, binding.target_offset, binding.size))
    table.mark_in_progress()


def commit(table: Digests, before: str, after: str, *, complete: bool) -> None:
    """Commit what a pass has made true of the target, whose stamp was `before` and is `after`.

    Call only after the target's fsync. `complete` says that the whole range was looked at, or that the rest
    is as the last complete pass left it. Raises Failed.
    """
    binding = table.header.binding
    if after != before or table.marked:
        _append(table, Written(before, after, binding.target_offset, binding.size))
    table.commit(BlockState.DONE if complete else BlockState.PARTIAL, after)


def _append(table: Digests, *lines: Written) -> None:
    path = history.path_of(table.path, table.header.binding.target)
    with telling(path, "cannot be written", "make room in its folder"):
        for line in lines:
            history.append(path, line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a pass into the target range [offset, offset + size) leaves to be committed.

    `table` None: it remembers nothing. `complete` says that the whole range was looked at, or that the rest
    is as the last complete pass left it; `wrote` that something may have been written.
    """

    table: Digests | None
    offset: int
    size: int
    complete: bool
    wrote: bool
    looked: bool


class Settlement:
    """The digest files of passes that write to ranges of one target, brought in line with it once all have
    ended. A stamp is about the whole target: while one pass writes, no other can be committed.

    `stamp` is the target's before the first of them.
    """

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.stamp = history.stamp(opened)
        self._lock = threading.Lock()
        self._ended: list[Ended] = []
        self._begun: set[Path] = set()
        self._is_lost = False

    def begin(self, table: Digests) -> None:
        """As `begin`, of a pass that is about to write for the first time."""
        with self._lock:
            self._begun.add(table.path)
            begin(table, self.stamp)

    def add(self, ended: Ended) -> None:
        """A pass has ended, and no thread of it writes any more."""
        with self._lock:
            self._ended.append(ended)

    def lose(self) -> None:
        """A flush failed. The kernel tells that once: nothing that was written since the one before may be
        claimed, whichever pass wrote it.
        """
        self._is_lost = True

    def settle(self) -> None:
        """Make durable what was written, then commit. Raises Failed."""
        if self._is_lost or not self._ended:
            return
        devices.make_durable(self.opened)
        tables = [(ended, ended.table) for ended in self._ended if ended.table is not None]
        if not tables:
            return
        stamp = history.stamp(self.opened)
        writers = [ended for ended in self._ended if ended.wrote]
        if writers and (stamp != self.stamp or self._begun):
            # Their digest files are side by side in most cases, and have one history then.
            for path in {history.path_of(table.path, table.header.binding.target) for _, table in tables}:
                self._leave_trace(path, stamp, writers)
        for ended, table in tables:
            state = BlockState.DONE if ended.complete else BlockState.PARTIAL
            table.bring_in_line(state, stamp, learned=ended.looked)

    def _leave_trace(self, path: Path, stamp: str, writers: list[Ended]) -> None:
        """Tell the digest files of other ranges of this target that these writes spared them."""
        # A line a range: they lead from one stamp to the other by way of stamps that no target has.
        between = [f"{stamp}/{number}" for number in range(1, len(writers))]
        with telling(path, "cannot be written", "make room in its folder"):
            for before, after, ended in zip([self.stamp, *between], [*between, stamp], writers, strict=True):
                history.append(path, Written(before, after, ended.offset, ended.size))
