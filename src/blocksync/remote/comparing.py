"""Prove that a target is equal to a source, one of which is on another host, by digests alone."""

import mmap
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from blocksync.devices import device as devices
from blocksync.devices import guards
from blocksync.devices import target as targets
from blocksync.devices.target import Range
from blocksync.digests.hashes import BLAKE3
from blocksync.ends.source import Sending, SourceEnd
from blocksync.ends.target import Receiving, TargetEnd
from blocksync.errors import BlocksyncError
from blocksync.extents import Extents
from blocksync.interruption import stop_on_signals
from blocksync.passes import BLOCK_SIZE, PassRequest
from blocksync.progress import Progress, Report
from blocksync.remote.far_end import FarEnd
from blocksync.remote.near import Scope
from blocksync.remote.watching import PassWatch, Whole
from blocksync.transports.interface import Transport
from blocksync.verify import Comparison
from blocksync.wire.conversation import say
from blocksync.wire.link import PATIENCE
from blocksync.wire.messages import Role


def compare(
    source: Path,
    target: Path,
    *,
    target_offset: int = 0,
    size: int | None = None,
    direct: bool = False,
    cache: bool = False,
    far: Role = "source",
    transport: Transport,
    name: str | None = None,
    progress: Report | None = None,
    patience: float = PATIENCE,
) -> Comparison:
    """Read both sides completely, each on its own host, and compare the digests of all blocks.

    The path of the `far` end is one on the host that `transport` reaches. The hash is BLAKE3, or the best
    that the far end has of those that nobody can make collide. Otherwise as `blocksync.verify.compare`;
    raises Failed when the link is lost.
    """
    request = PassRequest(
        source=source,
        target=target,
        target_offset=target_offset,
        size=size,
        block_size=BLOCK_SIZE,
        hash=BLAKE3,
        direct=direct,
        cache=cache,
        dry_run=True,
    )
    started = time.monotonic()
    with stop_on_signals() as stop:
        watch = PassWatch(stop, progress or _quiet, started, phase="verify")
        here = devices.measure(target if far == "source" else source)
        with FarEnd(transport, name or transport.describe(), patience=patience) as end:
            hashed = replace(request, hash=end.hash_for(BLAKE3))
            return (_with_far_source if far == "source" else _with_far_target)(hashed, end, watch, here)


def _with_far_source(
    request: PassRequest, far: FarEnd, watch: PassWatch, device: devices.Device
) -> Comparison:
    source = far.describe("source", str(request.source))
    scope = Scope.of(request, f"{far.name}: {request.source}", source.size, source.data)
    span = Range(
        path=request.target,
        offset=request.target_offset,
        size=scope.size,
        direct=request.direct,
        cache=request.cache,
        dry_run=True,
    )
    guards.range_fits(device, span.offset, span.size)
    table = _new_table(scope)
    blocks = scope.new_bitmap()
    with ExitStack() as stack:
        opened = stack.enter_context(targets.opened(span, device))
        # Before the target is closed, no thread may still read it.
        stack.callback(far.close)
        say(far.link, scope.start())
        far.ready()
        receiving = Receiving(
            opened=opened,
            base=span.offset,
            terms=scope.terms,
            hash=request.hash,
            extents=scope.extents,
            table=table,
            changed=blocks,
            gate=_nothing,
            dry_run=True,
        )
        end = TargetEnd(far.link, far.crew, receiving)
        _see_through(end, far, watch, scope.whole)
        far.farewell(end.done())
        if end.totals is None or not end.totals.complete:
            looked_at = 0 if end.totals is None else end.totals.looked_at
            raise watch.interrupted("verify", looked_at, scope.total)
    return _comparison(scope, blocks, table)


def _with_far_target(
    request: PassRequest, far: FarEnd, watch: PassWatch, device: devices.Device
) -> Comparison:
    scope = Scope.of(request, device.path, device.size, devices.data_size(device))
    far.describe("target", str(request.target))
    table, blocks = _new_table(scope), scope.new_bitmap()
    direct = devices.goes_direct(device, 0, direct=request.direct, cache=request.cache)
    with ExitStack() as stack:
        opened = stack.enter_context(devices.open_source(device, direct=direct))
        # Before the source is closed, no thread may still read it.
        stack.callback(far.close)
        say(far.link, scope.start(wanted=(0, scope.size)))
        far.ready()
        sending = Sending(
            opened=opened,
            terms=scope.terms,
            hash=request.hash,
            extents=scope.extents,
            table=table,
            changed=blocks,
            codecs=(),
            gate=_nothing,
            dry_run=True,
        )
        end = SourceEnd(far.link, far.crew, sending)
        _see_through(end, far, watch, scope.whole)
        if not end.complete:
            raise watch.interrupted("verify", end.moment()[0], scope.total)
    return _comparison(scope, blocks, table)


def _see_through(end: SourceEnd | TargetEnd, far: FarEnd, watch: PassWatch, whole: Whole) -> None:
    try:
        watch.see_through(end, far.crew, whole)
        watch.show(watch.phase, end, whole)
    except BlocksyncError as error:
        far.abandon(error)
        raise


def _new_table(scope: Scope) -> memoryview:
    """Room for one digest a block of what the target holds."""
    return memoryview(mmap.mmap(-1, max(scope.terms.all_blocks * scope.terms.digest_size, 1)))


def _comparison(scope: Scope, blocks: bytearray, table: memoryview) -> Comparison:
    differing = Extents.of_blocks(blocks, scope.request.block_size, scope.size)
    root = blake3(table[: scope.terms.all_blocks * scope.terms.digest_size]).hexdigest()
    return Comparison("" if differing else root, root, differing, scope.request.hash.name)


def _nothing() -> None:
    return None


def _quiet(progress: Progress) -> None:
    return None
