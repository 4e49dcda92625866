"""A pass from a source on another host to a target here."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from blocksync.devices import device, guards
from blocksync.devices import target as targets
from blocksync.devices.device import Device
from blocksync.devices.target import Range
from blocksync.digests import trust
from blocksync.digests.digest_file import Digests
from blocksync.digests.trust import Ended, Settlement
from blocksync.ends.target import Receiving, TargetEnd
from blocksync.errors import BlocksyncError, Failed, Interrupted
from blocksync.passes import PassReport, PassRequest
from blocksync.remote import near
from blocksync.remote.far_end import FarEnd
from blocksync.remote.near import NearOutcome, Scope
from blocksync.remote.watching import PassWatch
from blocksync.wire.conversation import say, send_extents
from blocksync.wire.link import Lost
from blocksync.wire.messages import FarDevice, Totals


@dataclass(frozen=True, slots=True)
class Pull:
    """A pass whose target is here, and was measured. `target` None is a file yet to be made.

    `together` is the settlement of several passes, for which their target is held open already.
    """

    target: Device | None
    together: Settlement | None = None

    @classmethod
    def prepare(cls, request: PassRequest) -> "Pull":
        """Look at this end. Writes nothing. Raises Usage."""
        guards.check_overrides(request.overrides)
        if request.digests is not None:
            trust.check_path(request.digests, request.target)
        return cls(targets.find(request.target))

    def run(self, request: PassRequest, far: FarEnd, watch: PassWatch) -> PassReport:
        """The pass; see blocksync.remote.run."""
        origin = None if request.origin is None else str(request.origin)
        source = far.describe("source", str(request.source), signature=True, origin=origin)
        scope = Scope.of(request, f"{far.name}: {request.source}", source.size, source.data)
        span = request.span(scope.size)
        if self.target is not None and far.same_kernel:
            here = near.there(request.source, source)
            if here is not None:
                guards.not_the_source(here, self.target, span.offset, span.size)
        # Before the target is settled and closed, no thread may still write to it.
        with self._held(span) as settlement, closing(far):
            table = self._digests(scope, f"{far.name} {source.identity}", settlement)
            self._guard_signatures(scope, source, table)
            report = _Pulling(scope, far, watch, settlement, table).run()
        return replace(report, seconds=watch.seconds)

    @contextmanager
    def _held(self, span: Range) -> Iterator[Settlement]:
        """The target guarded and held open; at the end it is settled, unless others write to it as well."""
        targets.guard(span, self.target, is_ours=self.together is not None)
        if self.together is not None:
            yield self.together
            return
        with targets.opened(span, self.target) as opened:
            settlement = Settlement(opened)
            try:
                yield settlement
            finally:
                if not span.dry_run:
                    settlement.settle()

    def _digests(self, scope: Scope, source: str, settlement: Settlement) -> Digests | None:
        request, opened = scope.request, settlement.opened
        if request.digests is None:
            return None
        return trust.believed(
            request.digests,
            scope.binding(source, opened.device.identity),
            scope.spans(),
            settlement.stamp,
            lambda at, length: device.read_opened(opened, request.target_offset + at, length),
        )

    def _guard_signatures(self, scope: Scope, source: FarDevice, table: Digests | None) -> None:
        # A trusted digest file is proof that the target holds what an earlier pass wrote.
        request = scope.request
        if self.target is None or request.dry_run or (table is not None and table.is_settled):
            return
        found = {source.signature.signature} if source.signature else set()
        expected = request.known_signatures | found
        guards.only_signatures(expected, self.target, request.target_offset, scope.size, request.overrides)


class _Pulling:
    """A pull under way, with the target held open."""

    def __init__(
        self, scope: Scope, far: FarEnd, watch: PassWatch, settlement: Settlement, table: Digests | None
    ) -> None:
        self._scope = scope
        self._far = far
        self._watch = watch
        self._opened = settlement.opened
        self._settlement = settlement
        self._table = table
        self._blocks = scope.new_bitmap()
        self._end = TargetEnd(far.link, far.crew, self._receiving())

    def run(self) -> PassReport:
        if self._table is not None and self._table.is_doubted and not self._scope.request.dry_run:
            self._doubt_the_cache()
        self._start()
        totals = self._see_through()
        self._far.farewell(self._end.done())
        if not totals.complete:
            raise self._watch.interrupted(self._opened.device.path, totals.looked_at, self._scope.total)
        return near.report(self._scope, self._outcome(totals), self._table, self._watch.seconds)

    def _doubt_the_cache(self) -> None:
        try:
            device.flush(self._opened)
        except Failed:
            self._leave(flushed=False)
            raise
        device.forget_pages(self._opened)

    def _receiving(self) -> Receiving:
        request, table = self._scope.request, self._table
        return Receiving(
            opened=self._opened,
            base=request.target_offset,
            terms=self._scope.terms,
            hash=request.hash,
            extents=self._scope.extents,
            table=None if table is None else memoryview(table.table)[: table.header.binding.table_size],
            changed=self._blocks,
            gate=self._before_first_write,
            compare=request.compare,
            dry_run=request.dry_run,
        )

    def _before_first_write(self) -> None:
        if self._table is not None:
            self._settlement.begin(self._table)

    def _start(self) -> None:
        say(self._far.link, self._scope.start())
        send_extents(self._far.link, self._scope.pairs or [])
        self._far.ready()

    def _see_through(self) -> Totals:
        try:
            self._far.moment = self._end.moment
            self._watch.see_through(self._end, self._far.crew, self._scope.whole)
            self._watch.show("flush", self._end, self._scope.whole)
        except BlocksyncError as error:
            self._far.abandon(error)
            # What was applied is, if it can be made durable, as good as after a stop.
            self._leave(flushed=not self._end.flush_failed)
            if isinstance(error, Lost) and not self._scope.request.dry_run:
                raise Interrupted(
                    self._far.name, f"{error.cause}; what was written is durable", error.way_out
                ) from error
            raise
        if self._end.totals is None:
            raise RuntimeError("the pass is finished, and has no totals")
        self._leave(complete=self._end.totals.complete)
        return self._end.totals

    def _leave(self, *, complete: bool = False, flushed: bool = True) -> None:
        """Leave to the settlement what this pass made true."""
        if not flushed:
            self._settlement.lose()
            return
        table = self._table
        self._settlement.add(
            Ended(
                table=table,
                offset=self._scope.request.target_offset,
                size=self._scope.size,
                complete=complete and (table is None or self._scope.is_complete(table)),
                wrote=self._end.gate_open,
                looked=self._end.bytes_read > 0,
            )
        )

    def _outcome(self, totals: Totals) -> NearOutcome:
        return NearOutcome(
            read=min(totals.read, self._scope.total),
            target_read=self._end.bytes_read,
            changed=self._end.bytes_changed,
            written=self._end.bytes_written,
            zeroed=self._end.zeroed,
            blocks=self._blocks,
        )
