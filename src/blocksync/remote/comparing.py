"""Prove that a target here is equal to a source on another host, by digests alone."""

import mmap
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from blocksync import devices, guards, targets
from blocksync.errors import BlocksyncError
from blocksync.extents import Extents
from blocksync.hashes import BLAKE3
from blocksync.interruption import stop_on_signals
from blocksync.passes import PassRequest
from blocksync.progress import Progress, Report
from blocksync.remote.far_end import FarEnd
from blocksync.remote.near import Scope
from blocksync.remote.watching import Watch
from blocksync.targets import Range
from blocksync.transports.interface import Transport
from blocksync.verify import Comparison
from blocksync.wire.conversation import expect, say
from blocksync.wire.link import PATIENCE
from blocksync.wire.messages import Ready
from blocksync.wire.target import Receiving, TargetEnd


def compare(
    source: Path,
    target: Path,
    *,
    target_offset: int = 0,
    size: int | None = None,
    direct: bool = False,
    cache: bool = False,
    transport: Transport,
    name: str | None = None,
    progress: Report | None = None,
    patience: float = PATIENCE,
) -> Comparison:
    """Read both sides completely, each on its own host, and compare the digests of all blocks.

    `source` is a path on the host that `transport` reaches. The hash is BLAKE3, or the best that the far end
    has of those that nobody can make collide. Otherwise as `blocksync.verify.compare`; raises Failed when the
    link is lost.
    """
    request = PassRequest(
        source=source,
        target=target,
        target_offset=target_offset,
        size=size,
        hash=BLAKE3,
        direct=direct,
        cache=cache,
        dry_run=True,
    )
    started = time.monotonic()
    with stop_on_signals() as stop:
        watch = Watch(stop, progress or _quiet, started, phase="verify")
        device = devices.measure(target)
        with FarEnd(transport, name or transport.describe(), patience=patience) as far:
            return _compare(replace(request, hash=far.hash_for(BLAKE3)), far, watch, device)


def _compare(request: PassRequest, far: FarEnd, watch: Watch, device: devices.Device) -> Comparison:
    source = far.describe("source", str(request.source))
    scope = Scope.of(request, f"{far.name}: {request.source}", source.size)
    span = Range(
        path=request.target,
        offset=request.target_offset,
        size=scope.size,
        direct=request.direct,
        cache=request.cache,
        dry_run=True,
    )
    guards.range_fits(device, span.offset, span.size)
    table = memoryview(mmap.mmap(-1, max(scope.terms.all_blocks * scope.terms.digest_size, 1)))
    blocks = scope.new_bitmap()
    with ExitStack() as stack:
        opened = stack.enter_context(targets.opened(span, device))
        # Before the target is closed, no thread may still read it.
        stack.callback(far.close)
        say(far.link, scope.start())
        expect(far.link, Ready)
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
        try:
            watch.see_through(end, far.crew, scope.total)
        except BlocksyncError as error:
            far.abandon(error)
            raise
        far.farewell(end.done())
        if end.totals is None or not end.totals.complete:
            looked_at = 0 if end.totals is None else end.totals.looked_at
            raise watch.interrupted("verify", looked_at, scope.total)
    differing = Extents.of_blocks(blocks, request.block_size, scope.size)
    root = blake3(table[: scope.terms.all_blocks * scope.terms.digest_size]).hexdigest()
    return Comparison("" if differing else root, root, differing, request.hash.name)


def _nothing() -> None:
    return None


def _quiet(progress: Progress) -> None:
    return None
