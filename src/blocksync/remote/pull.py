"""A pass from a source on another host to a target here."""

from contextlib import ExitStack
from dataclasses import dataclass

from blocksync import claims, devices, guards, history, targets
from blocksync.devices import Device, Opened
from blocksync.digests import Digests, State
from blocksync.errors import BlocksyncError, Interrupted
from blocksync.passes import PassReport, PassRequest
from blocksync.remote import near
from blocksync.remote.far_end import FarEnd
from blocksync.remote.near import Outcome, Scope
from blocksync.remote.watching import Watch
from blocksync.targets import Range
from blocksync.wire.conversation import expect, say, send_extents
from blocksync.wire.link import Lost
from blocksync.wire.messages import FarDevice, Ready, Totals
from blocksync.wire.target import Receiving, TargetEnd


@dataclass(frozen=True, slots=True)
class Pull:
    """A pass whose target is here, and was measured. `target` None is a file yet to be made."""

    target: Device | None

    @classmethod
    def prepare(cls, request: PassRequest) -> "Pull":
        """Look at this end. Writes nothing. Raises Usage."""
        guards.check_overrides(request.overrides)
        if request.digests is not None:
            claims.check_path(request.digests, request.target)
        return cls(targets.find(request.target))

    def run(self, request: PassRequest, far: FarEnd, watch: Watch) -> PassReport:
        """The pass; see blocksync.remote.run."""
        origin = None if request.origin is None else str(request.origin)
        source = far.describe("source", str(request.source), signature=True, origin=origin)
        scope = Scope.of(request, f"{far.name}: {request.source}", source.size)
        span = Range(
            path=request.target,
            offset=request.target_offset,
            size=scope.size,
            direct=request.direct,
            cache=request.cache,
            dry_run=request.dry_run,
            overrides=request.overrides,
        )
        if self.target is not None and far.same_kernel:
            here = near.there(request.source, source)
            if here is not None:
                guards.not_the_source(here, self.target, span.offset, span.size)
        targets.guard(span, self.target)
        with ExitStack() as stack:
            # Before the target is closed, no thread may still write to it.
            opened = stack.enter_context(targets.opened(span, self.target))
            stack.callback(far.close)
            table = self._digests(scope, f"{far.name} {source.identity}", opened)
            self._guard_signatures(scope, source, table)
            return _Pulling(scope, far, watch, opened, table).run()

    def _digests(self, scope: Scope, source: str, opened: Opened) -> Digests | None:
        request = scope.request
        if request.digests is None:
            return None
        return claims.believed(
            request.digests,
            scope.binding(source, opened.device.identity),
            scope.spans(),
            history.stamp(opened),
            lambda at, length: devices.read_opened(opened, request.target_offset + at, length),
        )

    def _guard_signatures(self, scope: Scope, source: FarDevice, table: Digests | None) -> None:
        # A trusted digest file is proof that the target holds what an earlier pass wrote.
        request = scope.request
        if self.target is None or request.dry_run or (table is not None and table.trusted):
            return
        found = {source.signature.signature} if source.signature else set()
        expected = request.known_signatures | found
        guards.only_signatures(expected, self.target, request.target_offset, scope.size, request.overrides)


class _Pulling:
    """A pull under way, with the target held open."""

    def __init__(
        self, scope: Scope, far: FarEnd, watch: Watch, opened: Opened, table: Digests | None
    ) -> None:
        self._scope = scope
        self._far = far
        self._watch = watch
        self._opened = opened
        self._table = table
        self._blocks = scope.new_bitmap()
        self._stamp = "" if table is None else history.stamp(opened)
        self._end = TargetEnd(far.link, far.crew, self._receiving())

    def run(self) -> PassReport:
        if self._table is not None and self._table.distrust and not self._scope.request.dry_run:
            devices.flush(self._opened)
            devices.forget_pages(self._opened)
        self._start()
        totals = self._see_through()
        self._commit(complete=totals.complete)
        self._far.farewell(self._end.done())
        if not totals.complete:
            raise self._watch.interrupted(self._opened.device.path, totals.looked_at, self._scope.total)
        return near.report(self._scope, self._outcome(totals), self._table, self._watch.seconds)

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
            self._table.mark_in_progress()

    def _start(self) -> None:
        say(self._far.link, self._scope.start())
        send_extents(self._far.link, self._scope.pairs or [])
        expect(self._far.link, Ready)

    def _see_through(self) -> Totals:
        try:
            self._far.moment = self._end.moment
            self._watch.see_through(self._end, self._far.crew, self._scope.total)
            self._watch.show("flush", self._end, self._scope.total)
        except BlocksyncError as error:
            self._far.abandon(error)
            self._keep_what_is_true()
            if isinstance(error, Lost):
                raise Interrupted(
                    self._far.name, f"{error.cause}; what was written is durable", error.way_out
                ) from error
            raise
        if self._end.totals is None:
            raise RuntimeError("the pass is finished, and has no totals")
        return self._end.totals

    def _keep_what_is_true(self) -> None:
        """After a failure: what was applied is, if it can be made durable, as good as after a stop."""
        if not self._end.flush_failed:
            self._commit(complete=False)

    def _commit(self, *, complete: bool) -> None:
        table, end = self._table, self._end
        if self._scope.request.dry_run:
            return
        devices.make_durable(self._opened)
        if table is None:
            return
        stamp = history.stamp(self._opened)
        whole = complete and self._scope.is_complete(table)
        state = State.DONE if whole else State.PARTIAL
        touched = end.bytes_read or table.marked or not table.trusted
        if touched or (table.header.state, table.header.stamp) != (state, stamp):
            claims.commit(table, self._stamp, stamp, complete=whole)

    def _outcome(self, totals: Totals) -> Outcome:
        return Outcome(
            read=min(totals.read, self._scope.total),
            target_read=self._end.bytes_read,
            changed=self._end.bytes_changed,
            written=self._end.bytes_written,
            zeroed=self._end.zeroed,
            blocks=self._blocks,
        )
