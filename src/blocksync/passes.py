"""One pass: make a range of a target equal to a source, writing only what differs.

The order of things is the promise, and docs/internals.md states it: guards before anything is opened for
writing; the digest file marked in progress, durably, before the first write; the target's fsync before the
digest file's commit.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from blocksync import devices, digests, guards, history
from blocksync._copy import Copy, Counters, count_runs
from blocksync.devices import Device, Opened
from blocksync.digests import Binding, Digests, State
from blocksync.errors import CHECK, Failed, Interrupted, Refused, Usage, telling
from blocksync.guards import Signature
from blocksync.hashes import XXH3, Hash
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
    `bytes_per_second` bounds what is looked at and written together. `known_signatures` may be on the
    target besides the source's own; `overrides` names guards to leave out.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What a pass did, in bytes.

    `bytes_read` and `target_bytes_read` are what was read of source and target: holes that the file system
    knows cost nothing. `bytes_changed` is the size of the blocks that differed, `bytes_written` what was
    written for them (less than whole blocks where the target's pages were at hand), `bytes_zeroed` what
    became holes instead. `extents_written` counts runs of neighbouring changed blocks. `notes` are messages
    for the user. In a dry run nothing is written and the figures say what would be.
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
    block_size: int = BLOCK_SIZE
    changed_blocks: bytes = field(default=b"", repr=False)
    size: int = 0

    def as_fields(self) -> dict[str, object]:
        """The figures by name, for JSON."""
        left_out = {"changed_blocks"}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}

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
    def target_size(self) -> int:
        return self.request.target_offset + self.size


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
        source = stack.enter_context(devices.open_source(plan.source, direct=_direct(request, plan.source)))
        target = stack.enter_context(_target(plan))
        table = _digests(plan, target)
        _refuse_foreign(plan, table)
        return _Pass(
            plan=plan,
            source=source,
            target=target,
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
    source = devices.measure(request.source)
    size = source.size if request.size is None else request.size
    request = replace(request, block_size=request.block_size or fitting_block_size(size))
    if size > source.size:
        raise Refused(
            source.path, f"has {source.size} bytes, not {size}", "give a smaller --size", guard="size"
        )
    _check_digest_path(request)
    target = None if _is_missing_file(request.target) else devices.measure(request.target)
    origin = source if request.origin is None else devices.measure(request.origin)
    plan = _Plan(request, source, origin, target, size)
    expected = target or _file_to_be(plan)
    guards.range_fits(expected, request.target_offset, size)
    if target is not None:
        for side in (source, origin):
            guards.not_the_source(side, target, request.target_offset, size)
        if not request.dry_run:
            guards.not_in_use(target, request.overrides)
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


def _check_digest_path(request: PassRequest) -> None:
    if request.digests is None:
        return
    digests.check_path(request.digests)
    for side in (request.source, request.target, *filter(None, [request.origin])):
        if request.digests.exists() and side.exists() and request.digests.samefile(side):
            raise Usage(request.digests, "is the source or the target itself", "name another digest file")


def _is_missing_file(path: Path) -> bool:
    """A target file is made when it is missing; a device node never is."""
    path = Path(path)
    if path.exists() or path.is_symlink():
        return False
    if path.resolve().is_relative_to("/dev") or not path.parent.is_dir():
        raise Usage(path, "does not exist", "check the path; a logical volume may need `lvchange -ay`")
    return True


def _file_to_be(plan: _Plan) -> Device:
    return Device(plan.request.target, "file", plan.target_size, devices.FILE_SECTOR, (-1, -1), "")


def _direct(request: PassRequest, device: Device, offset: int = 0) -> bool:
    wanted = not request.cache if device.is_block else request.direct
    return wanted and devices.can_be_direct(device, offset)


@contextmanager
def _target(plan: _Plan) -> Iterator[Opened]:
    request = plan.request
    if request.dry_run:
        with _dry_target(plan) as opened:
            yield opened
        return
    device = plan.target or devices.create_sparse(request.target, plan.target_size)
    exclusive = not guards.claims_waived(request.overrides)
    with devices.open_target(
        device, direct=_direct(request, device, request.target_offset), exclusive=exclusive
    ) as opened:
        yield opened


@contextmanager
def _dry_target(plan: _Plan) -> Iterator[Opened]:
    if plan.target is not None:
        with devices.open_source(
            plan.target, direct=_direct(plan.request, plan.target, plan.request.target_offset)
        ) as opened:
            yield opened
        return
    # The file that would be made is one hole, and so is this.
    fd = os.memfd_create("target")
    try:
        os.truncate(fd, plan.target_size)
        yield Opened(_file_to_be(plan), fd, 1, fd)
    finally:
        os.close(fd)


def _digests(plan: _Plan, target: Opened) -> Digests | None:
    request = plan.request
    if request.digests is None:
        return None
    binding = Binding(
        source=plan.origin.identity,
        target=target.device.identity,
        size=plan.size,
        target_offset=request.target_offset,
        block_size=request.block_size,
        hash=request.hash,
    )
    reach = digests.CHUNK_DIGESTS * request.block_size
    spans = None if request.only is None else request.only.aligned(reach, plan.size).pairs()
    table = digests.load(request.digests, binding, spans)
    if table.trusted:
        _check_history(plan, target, table)
    if table.trusted:
        table.spot_check(lambda at, length: devices.read_opened(target, request.target_offset + at, length))
    return table


def _check_history(plan: _Plan, target: Opened, table: Digests) -> None:
    request = plan.request
    path = history.path_of(table.path, target.device.identity)
    now = history.stamp(target)
    if not history.explains(path, table.header.stamp, now, request.target_offset, plan.size):
        table.forget("is stale: something else wrote to the target since, or the machine was restarted")


def _refuse_foreign(plan: _Plan, table: Digests | None) -> None:
    # A trusted digest file is proof that the target holds what an earlier pass wrote.
    if plan.target is None or plan.request.dry_run or (table is not None and table.trusted):
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
        target: Opened,
        table: Digests | None,
        report: Report,
        stop: Stop,
        started: float,
    ) -> None:
        self._plan = plan
        self._source = source
        self._target = target
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
        self._durable = 0
        self._flushed = 0
        self._stamp = "" if table is None else history.stamp(target)

    def run(self) -> PassReport:
        if self._table is not None and self._table.distrust and not self._plan.request.dry_run:
            devices.flush(self._target)
            devices.forget_pages(self._target)
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
        segment = max(DIRECT_SEGMENT if self._is_direct else SEGMENT, request.block_size)
        return Copy(
            source_fd=self._source.fd,
            target_fd=self._target.fd,
            tail_fd=self._target.tail_fd,
            size=self._plan.size,
            target_offset=request.target_offset,
            block_size=request.block_size,
            segment_size=segment,
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
        return self._source.align > 1 or self._target.align > 1

    def _before_first_write(self) -> None:
        if self._table is not None:
            self._table.mark_in_progress()

    def _work(self, copy: Copy) -> None:
        count = DIRECT_WORKERS if self._is_direct else min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        workers = [threading.Thread(target=copy.work, name=f"copy {i}") for i in range(count)]
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
            devices.flush(self._target)
            self._flushed = issued
            self._durable = counters.done
        else:
            devices.begin_flush(self._target)

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
        devices.make_durable(self._target)
        self._durable = counters.done
        if self._table is None:
            return
        stamp = history.stamp(self._target)
        if stamp != self._stamp:
            self._leave_trace(self._table.path, stamp)
        whole = complete and (self._only is None or self._table.header.state is State.DONE)
        state = State.DONE if whole else State.PARTIAL
        self._table.bring_in_line(state, stamp, learned=counters.learned > 0)

    def _leave_trace(self, path: Path, stamp: str) -> None:
        """Tell the digest files of other ranges of this target that these writes spared them."""
        path = history.path_of(path, self._target.device.identity)
        written = history.Written(self._stamp, stamp, self._plan.request.target_offset, self._plan.size)
        with telling(path, "cannot be written", "make room in its folder, then run the same command again"):
            history.append(path, written)

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
                bytes_done=self._durable,
                bytes_total=self._total,
                bytes_changed=counters.changed,
                bytes_written=counters.written,
                seconds=time.monotonic() - self._started,
            )
        )

    def _result(self, counters: Counters) -> PassReport:
        distrust = self._table.distrust if self._table is not None else ""
        notes = (
            (f"digest file {self._plan.request.digests} {distrust}; everything was compared",)
            if distrust
            else ()
        )
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
            notes=notes,
            block_size=self._plan.request.block_size,
            changed_blocks=bytes(self._changed),
            size=self._plan.size,
        )
