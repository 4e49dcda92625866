"""One pass: make a range of a target equal to a source, writing only what differs.

The order of things is the promise, and docs/internals.md states it: guards before anything is opened for
writing; the digest file marked in progress, durably, before the first write; the target's fsync before the
digest file's commit.
"""

import os
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from blocksync._copy import Copy, Counters, count_runs
from blocksync.devices import device, guards
from blocksync.devices import target as targets
from blocksync.devices.device import Device, Opened
from blocksync.devices.guards import Signature
from blocksync.devices.target import Range
from blocksync.digests import trust
from blocksync.digests.digest_file import Binding, Digests
from blocksync.digests.hashes import XXH3, Hash
from blocksync.digests.trust import Ended, Settlement
from blocksync.errors import CHECK, Failed, Interrupted, Refused, Usage, telling
from blocksync.interruption import Stop, stop_on_signals
from blocksync.progress import Progress, Report

if TYPE_CHECKING:
    from blocksync.extents import Extents

BLOCK_SIZE = 65536
# A changed page costs a whole block, read here and on its way between hosts: blocks are smaller as long as
# their digests are no more than this many.
SMALL_BLOCK_SIZE = 16384
MOST_SMALL_BLOCKS = 4 * 2**20
SMALLEST_BLOCK = 4096
LARGEST_BLOCK = 16 * 2**20

SEGMENT = 256 * 1024
DIRECT_SEGMENT = 2**20
MOST_WORKERS = 8
DIRECT_WORKERS = 8

# Below this rate a pass takes smaller bites, by fewer workers: each waits for its turn, and progress with it.
FEW_A_SECOND = 4
SLOW = FEW_A_SECOND * MOST_WORKERS * DIRECT_SEGMENT

# Flush behind the writers, so that progress is durable.
FLUSH_EVERY = 256 * 2**20
# How often the disk is given what was written meanwhile, so that the last flush is short.
TICK = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRequest:
    """What to copy where. Sizes and offsets are in bytes.

    `size` None means the whole source. `block_size` 0 means what fits its size. `digests` names
    the file that remembers what the target holds; without one the target is read. `compare` false writes
    unknown blocks without reading the target. `only` limits the pass to extents of the source. `origin` is
    the volume that `source` is a snapshot of: the digest file is then about that volume, and serves all its
    snapshots. `direct` reads regular files past the page cache as well; `cache` lets block devices be read
    through it, which is stale when a guest writes underneath. `hash` is what digests are made of.
    `bytes_per_second` bounds what is read of the source and written together; holes cost nothing.
    `known_signatures` may be on the target besides the source's own; `overrides` names guards to leave out.
    """

    source: Path
    target: Path
    origin: Path | None = None
    target_offset: int = 0
    size: int | None = None
    digests: Path | None = None
    block_size: int = 0
    hash: Hash = XXH3
    compare: bool = True
    only: "Extents | None" = None
    dry_run: bool = False
    direct: bool = False
    cache: bool = False
    bytes_per_second: int | None = None
    known_signatures: frozenset[Signature] = frozenset()
    overrides: frozenset[str] = frozenset()

    def span(self, size: int) -> Range:
        """The target's range for `size` bytes, and how it is to be opened."""
        return Range(
            path=self.target,
            offset=self.target_offset,
            size=size,
            direct=self.direct,
            cache=self.cache,
            dry_run=self.dry_run,
            overrides=self.overrides,
        )

    def binding(self, size: int, *, source: str, target: str) -> Binding:
        """What the digest file of a pass over `size` bytes is about; the two are identities."""
        return Binding(
            source=source,
            target=target,
            size=size,
            target_offset=self.target_offset,
            block_size=self.block_size,
            hash=self.hash,
        )

    def digest_spans(self, size: int) -> list[tuple[int, int]] | None:
        """The parts of a range of `size` bytes whose digests the pass needs; None for all of it."""
        if self.only is None:
            return None
        return self.only.aligned(self.block_size, size).pairs()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What a pass did, in bytes.

    `bytes_read` and `target_bytes_read` are what was read of source and target: holes that the file system
    knows cost nothing. `bytes_changed` is the size of the blocks that differed, `bytes_written` what was
    written for them (less than whole blocks where the target's pages were at hand), `bytes_zeroed` what
    became holes instead. `extents_written` counts runs of neighbouring changed blocks. `notes` are messages
    for the user; `compared_all` says that the digest file was not believed: whatever it was to vouch for may
    be otherwise. In a dry run nothing is written and the figures say what would be.
    """

    bytes_total: int
    bytes_read: int
    target_bytes_read: int
    bytes_changed: int
    bytes_written: int
    bytes_zeroed: int
    extents_written: int
    seconds: float
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    compared_all: bool = False
    block_size: int = BLOCK_SIZE
    changed_blocks: bytes = field(default=b"", repr=False)
    size: int = 0

    def as_fields(self) -> dict[str, object]:
        """The figures by name, for JSON."""
        left_out = {"changed_blocks"}
        figures = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        return {**figures, "bytes_to_write": self.bytes_to_write}

    @property
    def bytes_to_write(self) -> int:
        """What a dry run says that a pass would write, at most; 0 of a pass that was made."""
        return self.bytes_changed if self.dry_run else 0

    @property
    def changed(self) -> "Extents":
        """The extents that differed, as offsets into the source."""
        from blocksync.extents import Extents  # noqa: PLC0415

        return Extents.of_blocks(self.changed_blocks, self.block_size, self.size)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request that was measured and may be carried out. `target` None is a file yet to be made."""

    request: PassRequest
    source: Device
    origin: Device
    target: Device | None
    size: int

    @property
    def reads_direct(self) -> bool:
        """Whether the source is read past the page cache."""
        return device.goes_direct(self.source, 0, direct=self.request.direct, cache=self.request.cache)


def fitting_block_size(size: int) -> int:
    """The unit of a pass over `size` bytes, where none was asked for."""
    block = SMALL_BLOCK_SIZE
    while block < BLOCK_SIZE and size > block * MOST_SMALL_BLOCKS:
        block *= 2
    return block


def run(request: PassRequest, *, progress: Report | None = None) -> PassReport:
    """Carry out one pass; returns when the target is durable and the digest file committed.

    Raises Usage or Refused before anything is written, Failed when a device fails, Interrupted after SIGINT
    or SIGTERM once what was done is committed.
    """
    started = time.monotonic()
    with telling(request.target, "failed"), stop_on_signals() as stop, ExitStack() as stack:
        plan = _prepare(request)
        source = stack.enter_context(device.open_source(plan.source, direct=plan.reads_direct))
        target = stack.enter_context(targets.opened(request.span(plan.size), plan.target))
        settlement = Settlement(target)
        table = _digests(plan, settlement)
        _refuse_foreign(plan, table)
        return _Pass(
            plan=plan,
            source=source,
            settlement=settlement,
            table=table,
            report=progress or _quiet,
            stop=stop,
            started=started,
        ).run()


def _quiet(progress: Progress) -> None:
    return None


def _prepare(request: PassRequest) -> _Plan:
    """Measure both ends and ask every guard that needs no open target. Writes nothing."""
    check_options(request)
    _check_digest_path(request)
    source = device.measure(request.source)
    size = source.size if request.size is None else request.size
    request = replace(request, block_size=request.block_size or fitting_block_size(size))
    if size > source.size:
        raise Refused(
            source.path, f"has {source.size} bytes, not {size}", "give a smaller --size", guard="size"
        )
    require_memory(source.path, size, request)
    origin = source if request.origin is None else device.measure(request.origin)
    plan = _Plan(request, source, origin, targets.find(request.target), size)
    if plan.target is not None:
        for side in (source, origin):
            guards.not_the_source(side, plan.target, request.target_offset, size)
    targets.guard(request.span(size), plan.target)
    return plan


def check_options(request: PassRequest) -> None:
    """Raises Usage for options that no pass can have, whatever the devices are."""
    guards.check_overrides(request.overrides)
    block = request.block_size or BLOCK_SIZE
    if not SMALLEST_BLOCK <= block <= LARGEST_BLOCK or block & (block - 1):
        raise Usage(
            f"block size {block}", "is no power of two from 4 KiB to 16 MiB", "64KiB serves most volumes"
        )
    if request.size is not None and request.size < 0:
        raise Usage(f"size {request.size}", "is negative", "leave it out to copy the whole source")
    if request.bytes_per_second is not None and request.bytes_per_second <= 0:
        raise Usage("--bwlimit", "is not above zero", "leave it out for no limit")
    if request.direct and request.cache:
        raise Usage("--direct", "contradicts --cache", "give one of them")


def require_memory(source: Path | str, size: int, request: PassRequest) -> None:
    """Raises Refused (guard `size`) where what a pass remembers of the blocks of `size` bytes, a bit of each
    and its digest, is more than this machine's memory. `source` may be a name of what is on another host,
    whose word on its size that is. The block size must be set.
    """
    blocks = -(-size // request.block_size)
    needed = blocks * (1 + 8 * request.hash.size * (request.digests is not None)) // 8
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise Refused(
            source,
            f"is said to have {size} bytes: what is remembered of its blocks needs {needed}, of {memory}",
            "check the path, or use a larger --block-size",
            guard="size",
        )


def _check_digest_path(request: PassRequest) -> None:
    if request.digests is None:
        return
    trust.check_path(request.digests, request.source, request.target, *filter(None, [request.origin]))


def _digests(plan: _Plan, settlement: Settlement) -> Digests | None:
    request, target = plan.request, settlement.opened
    if request.digests is None:
        return None
    return trust.believed(
        request.digests,
        request.binding(plan.size, source=plan.origin.identity, target=target.device.identity),
        request.digest_spans(plan.size),
        settlement.stamp,
        lambda at, length: device.read_opened(target, request.target_offset + at, length),
    )


def _refuse_foreign(plan: _Plan, table: Digests | None) -> None:
    # A trusted digest file is proof that the target holds what an earlier pass wrote.
    if plan.target is None or plan.request.dry_run or (table is not None and table.is_settled):
        return
    request = plan.request
    guards.no_foreign_signature(
        plan.source,
        plan.target,
        request.target_offset,
        plan.size,
        known=request.known_signatures,
        overrides=request.overrides,
    )


class _Pass:
    """A pass under way, with everything it needs held open."""

    def __init__(
        self,
        *,
        plan: _Plan,
        source: Opened,
        settlement: Settlement,
        table: Digests | None,
        report: Report,
        stop: Stop,
        started: float,
    ) -> None:
        self._plan = plan
        self._source = source
        self._settlement = settlement
        self._target = settlement.opened
        self._table = table
        self._report = report
        self._stop = stop
        self._started = started
        blocks = -(-plan.size // plan.request.block_size)
        self._changed = bytearray(-(-blocks // 8))
        self._blocks = blocks
        only = plan.request.only
        self._only = None if only is None else only.aligned(plan.request.block_size, plan.size)
        self._total = plan.size if self._only is None else self._only.total
        self._to_read = device.data_size(plan.source)
        self._durable = 0
        self._flushed = 0

    def run(self) -> PassReport:
        if self._table is not None and self._table.is_doubted and not self._plan.request.dry_run:
            device.flush(self._target)
            device.forget_pages(self._target)
        copy = self._core()
        self._work(copy)
        self._raise_fault(copy)
        counters = copy.counters()
        complete = counters.done == self._total
        if not self._plan.request.dry_run:
            self._commit(counters, complete=complete)
        if not complete:
            raise self._interrupted(counters)
        self._show("flush", counters)
        return self._result(counters)

    def _core(self) -> Copy:
        request = self._plan.request
        return Copy(
            source_fd=self._source.fd,
            target_fd=self._target.fd,
            tail_fd=self._target.tail_fd,
            size=self._plan.size,
            target_offset=request.target_offset,
            block_size=request.block_size,
            segment_size=self._segment,
            source_align=self._source.align,
            target_align=self._target.align,
            source_holes=not self._source.device.is_block,
            target_holes=not self._target.device.is_block,
            compare=request.compare,
            dry_run=request.dry_run,
            digests=None if self._table is None else self._table.table,
            hasher=None if request.hash is XXH3 else request.hash.digest,
            digest_size=request.hash.size,
            bytes_per_second=request.bytes_per_second or 0,
            changed=self._changed,
            extents=None if self._only is None else self._only.rows.data,
            gate=self._before_first_write,
        )

    @property
    def _is_direct(self) -> bool:
        return self._source.is_direct or self._target.is_direct

    @property
    def _segment(self) -> int:
        """Bytes that a worker handles at a time."""
        rate = self._plan.request.bytes_per_second
        large = self._is_direct and (rate is None or rate >= SLOW)
        return max(DIRECT_SEGMENT if large else SEGMENT, self._plan.request.block_size)

    @property
    def _workers(self) -> int:
        """How many work, so that each has its turn several times a second."""
        most = DIRECT_WORKERS if self._is_direct else min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        rate = self._plan.request.bytes_per_second
        return most if rate is None else max(1, min(most, rate // (FEW_A_SECOND * self._segment)))

    def _before_first_write(self) -> None:
        if self._table is not None:
            self._settlement.begin(self._table)

    def _work(self, copy: Copy) -> None:
        workers = [threading.Thread(target=copy.work, name=f"copy {i}") for i in range(self._workers)]
        try:
            for worker in workers:
                worker.start()
            while alive := [worker for worker in workers if worker.is_alive()]:
                alive[0].join(TICK)
                if self._stop:
                    copy.stop()
                self._flush_behind(copy.counters())
                self._show("copy", copy.counters())
        finally:
            copy.stop()
            for worker in workers:
                if worker.ident is not None:
                    worker.join()

    def _flush_behind(self, counters: Counters) -> None:
        issued = counters.written + counters.zeroed
        if issued == self._flushed:
            self._durable = counters.done
        elif issued - self._flushed >= FLUSH_EVERY:
            device.flush(self._target)
            self._flushed = issued
            self._durable = counters.done
        else:
            device.begin_flush(self._target)

    def _raise_fault(self, copy: Copy) -> None:
        fault = copy.fault()
        if fault is None:
            return
        side = self._source if fault.step.startswith("source") else self._target
        if fault.step == "memory":
            raise Failed("blocksync", "is out of memory", "free some, or use a smaller block size")
        verb = "written" if fault.step == "target write" else "read"
        cause = os.strerror(fault.errno) if fault.errno else "the device ends there"
        raise self._failed(side, f"cannot be {verb} at byte {fault.offset}: {cause}")

    def _failed(self, side: Opened, cause: str) -> Failed:
        return Failed(side.device.path, cause, CHECK)

    def _commit(self, counters: Counters, *, complete: bool) -> None:
        """Make durable what was written, then claim it."""
        table = self._table
        whole = self._only is None or (table is not None and table.whole)
        self._settlement.add(
            Ended(
                table=table,
                offset=self._plan.request.target_offset,
                size=self._plan.size,
                complete=complete and whole,
                wrote=counters.written + counters.zeroed > 0,
                looked=counters.learned > 0,
            )
        )
        self._settlement.settle()
        self._durable = counters.done

    def _interrupted(self, counters: Counters) -> Interrupted:
        name = self._stop.signal.name if self._stop.signal else "a request"
        return Interrupted(
            self._target.device.path,
            f"stopped by {name} after {counters.done} of {self._total} bytes; what was written is durable",
            "run the same command again to go on",
        )

    def _show(self, phase: str, counters: Counters) -> None:
        self._report(
            Progress(
                phase=phase,
                bytes_done=counters.done if self._plan.request.dry_run else self._durable,
                bytes_looked_at=counters.done,
                bytes_total=self._total,
                bytes_changed=counters.changed,
                bytes_written=counters.written,
                bytes_read=counters.source_read,
                bytes_moved=counters.source_read + counters.written,
                bytes_to_read=self._to_read,
                limit=self._plan.request.bytes_per_second,
                seconds=time.monotonic() - self._started,
            )
        )

    def _result(self, counters: Counters) -> PassReport:
        return PassReport(
            bytes_total=self._total,
            bytes_read=counters.source_read,
            target_bytes_read=counters.target_read,
            bytes_changed=counters.changed,
            bytes_written=counters.written,
            bytes_zeroed=counters.zeroed,
            extents_written=count_runs(self._changed, self._blocks),
            seconds=time.monotonic() - self._started,
            dry_run=self._plan.request.dry_run,
            notes=() if self._table is None else self._table.notes,
            compared_all=self._table is not None and bool(self._table.distrust),
            block_size=self._plan.request.block_size,
            changed_blocks=bytes(self._changed),
            size=self._plan.size,
        )
