"""A pass from a source here to a target on another host, whose guards run there."""

import mmap
from dataclasses import dataclass

from blocksync._runs import has_unknown
from blocksync.devices import device, guards
from blocksync.devices.device import Device
from blocksync.digests import trust
from blocksync.digests.digest_file import Digests
from blocksync.ends.source import Sending, SourceEnd
from blocksync.errors import BlocksyncError, Interrupted
from blocksync.passes import PassReport, PassRequest
from blocksync.remote import near
from blocksync.remote.far_end import FarEnd
from blocksync.remote.near import NearOutcome, Scope
from blocksync.remote.watching import PassWatch
from blocksync.wire import extent_list
from blocksync.wire.conversation import say, send_extents
from blocksync.wire.extent_list import Pair
from blocksync.wire.frames import MOST_DIGESTS
from blocksync.wire.link import Lost
from blocksync.wire.messages import Done, FarDevice, Ready


@dataclass(frozen=True, slots=True)
class Push:
    """A pass whose source is here, and was measured."""

    source: Device

    @classmethod
    def prepare(cls, request: PassRequest) -> "Push":
        """Look at this end. Writes nothing. Raises Usage."""
        guards.check_overrides(request.overrides)
        if request.digests is not None:
            trust.check_path(request.digests, request.source)
        return cls(device.measure(request.source))

    def run(self, request: PassRequest, far: FarEnd, watch: PassWatch) -> PassReport:
        """The pass; see blocksync.remote.run."""
        scope = Scope.of(request, request.source, self.source.size, device.data_size(self.source))
        target = far.describe("target", str(request.target))
        if target.kind != "missing" and far.same_kernel:
            here = near.there(request.target, target)
            if here is not None:
                guards.not_the_source(self.source, here, request.target_offset, scope.size)
        return _Pushing(scope, far, watch, self.source, target).run()


class _Pushing:
    """A push under way."""

    def __init__(
        self, scope: Scope, far: FarEnd, watch: PassWatch, source: Device, target: FarDevice
    ) -> None:
        self._scope = scope
        self._far = far
        self._watch = watch
        self._source = source
        origin = scope.request.origin
        self._origin = source if origin is None else device.measure(origin)
        self._target = target
        self._blocks = scope.new_bitmap()
        self._table: Digests | None = None
        self._stamp = ""

    def run(self) -> PassReport:
        request = self._scope.request
        if self._target.kind != "missing":
            self._table = self._digests(self._target.identity, self._target.stamp)
        ready = self._start()
        self._stamp = ready.stamp
        if self._target.kind == "missing" and not request.dry_run:
            self._table = self._digests(ready.identity, ready.stamp)
        direct = device.goes_direct(self._source, 0, direct=request.direct, cache=request.cache)
        with device.open_source(self._source, direct=direct) as opened:
            end = SourceEnd(self._far.link, self._far.crew, self._sending(opened))
            try:
                done = self._see_through(end)
            finally:
                # Before the source is closed, no thread may still read it.
                self._far.close()
        complete = end.complete
        if self._table is not None and not request.dry_run:
            whole = complete and self._scope.is_complete(self._table)
            trust.commit(self._table, self._stamp, done.stamp, complete=whole)
        if not complete:
            thing = f"{self._far.name}: {request.target}"
            raise self._watch.interrupted(thing, end.moment()[0], self._scope.total)
        return near.report(self._scope, self._outcome(end, done), self._table, self._watch.seconds)

    def _digests(self, identity: str, stamp: str) -> Digests | None:
        request = self._scope.request
        if request.digests is None:
            return None
        return trust.believed(
            request.digests,
            self._scope.binding(self._origin.identity, f"{self._far.name} {identity}"),
            self._scope.spans(),
            stamp,
            lambda at, length: self._far.read(request.target_offset + at, length),
        )

    def _start(self) -> Ready:
        """Start the pass there, whose guards then agree or refuse."""
        request, table = self._scope.request, self._table
        found = guards.probe(request.source, 0, self._scope.size)
        start = self._scope.start(
            trusted=table is not None and table.is_settled,
            wanted=self._wanted(),
            known=request.known_signatures | ({found} if found else set()),
        )
        say(self._far.link, start)
        send_extents(self._far.link, self._scope.pairs or [])
        return self._far.ready()

    def _wanted(self) -> Pair:
        """A range that holds every block whose digest only the target can tell."""
        if self._table is None:
            return 0, self._scope.size
        terms = self._scope.terms
        reach = MOST_DIGESTS * terms.block_size
        first = last = 0
        with memoryview(self._table.table) as table:
            for at, size in extent_list.pieces(self._scope.extents, reach):
                if has_unknown(table[terms.digests_of(at, size)], terms.digest_size):
                    first = first if last else at
                    last = at + size
        return first, last - first

    def _sending(self, opened: device.Opened) -> Sending:
        request, terms = self._scope.request, self._scope.terms
        if self._table is not None:
            table = memoryview(self._table.table)
        else:
            table = memoryview(mmap.mmap(-1, max(terms.all_blocks * terms.digest_size, 1)))
        return Sending(
            opened=opened,
            terms=terms,
            hash=request.hash,
            extents=self._scope.extents,
            table=table,
            changed=self._blocks,
            codecs=self._far.hello.codecs,
            gate=self._before_first_change,
            remember=self._table is not None,
            dry_run=request.dry_run,
        )

    def _before_first_change(self) -> None:
        if self._table is not None and not self._scope.request.dry_run:
            trust.begin(self._table, self._stamp)

    def _see_through(self, end: SourceEnd) -> Done:
        try:
            self._far.moment = end.moment
            self._watch.see_through(end, self._far.crew, self._scope.whole)
            self._watch.show("flush", end, self._scope.whole)
        except BlocksyncError as error:
            self._far.abandon(error)
            if isinstance(error, Lost) and not self._scope.request.dry_run:
                # The digest file stays as it was marked: what arrived there is not known here.
                raise Interrupted(self._far.name, error.cause, error.way_out) from error
            raise
        if end.done is None:
            raise RuntimeError("the pass is finished, and was not acknowledged")
        return end.done

    def _outcome(self, end: SourceEnd, done: Done) -> NearOutcome:
        return NearOutcome(
            read=end.bytes_read,
            target_read=min(done.read, self._scope.total),
            changed=end.bytes_changed,
            written=min(done.written, end.bytes_changed),
            zeroed=min(done.zeroed, end.bytes_changed),
            blocks=self._blocks,
        )
