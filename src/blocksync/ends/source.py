"""The source's end of a pass: hash what is there, send what the target does not hold.

The listener takes in the target's digests as they come and never waits for anything, so that the target's end
never has to. Workers scan stretches behind them, and send each run that differs straight from the memory that
was hashed. Then come the totals, and the target's word that everything is durable.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from blocksync._runs import find_runs
from blocksync.devices.device import Opened
from blocksync.digests.hashes import Hash
from blocksync.ends.flush_tracker import Ledger
from blocksync.ends.reading import Desk, Hasher
from blocksync.ends.scanning import Scanner
from blocksync.ends.thread_group import Crew
from blocksync.wire import blocks, extent_list
from blocksync.wire.compression import Compressor
from blocksync.wire.extent_list import Pair, Walk
from blocksync.wire.frames import Codec, FrameHeader, FrameKind, Terms, Violation
from blocksync.wire.link import Link
from blocksync.wire.messages import Done, ErrorMessage, Totals, decode, encode

# What a worker claims at a time: native code goes through it as long as nothing differs.
STRETCH = 8 * 2**20
DIRECT_WORKERS = 4
MOST_WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What the source's end of one pass is about.

    `table` has one digest a block of what the target holds, as far as this end knows it; zero means unknown.
    With `remember` it is kept up with what is sent. `changed` is a zeroed bitmap of blocks. `codecs` are what
    the target can unpack. `gate` is called once, before the first change is sent.
    """

    opened: Opened
    terms: Terms
    hash: Hash
    extents: Sequence[Pair]
    table: memoryview
    changed: bytearray
    codecs: Sequence[str]
    gate: Callable[[], None]
    remember: bool = False
    dry_run: bool = False


class SourceEnd:
    """The source's end at work. `start` it, then wait until it is `finished`."""

    def __init__(self, link: Link, crew: Crew, sending: Sending) -> None:
        self._link = link
        self._crew = crew
        self._sending = sending
        self._workers = _workers(sending.opened)
        self._packer = Compressor(link, sending.codecs, self._workers)
        self._terms = sending.terms
        self._hasher = Hasher(sending.terms, sending.hash)
        self._scanner = Scanner(sending.opened, sending.terms, self._hasher, sending.table)
        self._walk = Walk(sending.extents)
        self._stretches = extent_list.pieces(sending.extents, _stretch(sending.terms))
        self._claiming = threading.Lock()
        # Held while a change is sent, so that what is noted of it has the order of the wire.
        self._sending_order = threading.Lock()
        self._gate_open = False
        self._told = 0
        self._halted = False
        self._working = 0
        self._looked_at = 0
        self._changed = 0
        self._ledger = Ledger()
        self.done: Done | None = None

    def start(self) -> None:
        self._working = self._workers
        self._crew.start("listen", self._listen)
        for number in range(self._workers):
            self._crew.start(f"scan {number}", self._scan)

    def stop(self) -> None:
        """Finish the segments that are being looked at, and then say what was done."""
        self._halted = True
        self._crew.notify()

    @property
    def finished(self) -> bool:
        return self.done is not None

    @property
    def durable(self) -> int:
        """Bytes of the pass that are looked at and, where they differed, durable at the target."""
        return self._looked_at if self._sending.dry_run else self._ledger.passed

    @property
    def looked_at(self) -> int:
        """Bytes of the pass that are looked at."""
        return self._looked_at

    @property
    def source_read(self) -> int:
        """Bytes that were read of the source."""
        return self.bytes_read

    @property
    def bytes_moved(self) -> int:
        """Bytes that went over the link."""
        return self._link.sent

    @property
    def bytes_read(self) -> int:
        return self._scanner.bytes_read

    @property
    def complete(self) -> bool:
        """Whether everything was looked at."""
        return self._looked_at == sum(size for _, size in self._sending.extents)

    @property
    def bytes_written(self) -> int:
        """What was sent to be written."""
        return self._changed

    @property
    def bytes_changed(self) -> int:
        return self._changed

    def moment(self) -> tuple[int, int]:
        """How far the scan is: bytes looked at and bytes read."""
        return self._looked_at, self.bytes_read

    def _listen(self) -> None:
        while not self.finished:
            self._heed(self._link.receive(self._terms))

    def _heed(self, header: FrameHeader) -> None:
        match header.kind:
            case FrameKind.DIGESTS | FrameKind.UNKNOWN | FrameKind.HOLE | FrameKind.KNOWN:
                self._learn(header)
            case FrameKind.ALIVE:
                pass
            case FrameKind.STOP:
                self.stop()
            case FrameKind.DURABLE:
                self._acknowledge(header.offset)
            case FrameKind.DONE:
                self._end(decode(self._link.payload(header), Done))
            case FrameKind.ERROR:
                raise decode(self._link.payload(header), ErrorMessage).error(self._link.peer)
            case _:
                raise Violation(f"a frame {header.kind.name} to the source's end")

    def _learn(self, header: FrameHeader) -> None:
        self._walk.step(header.offset, header.size)
        slots = self._sending.table[self._terms.digests_of(header.offset, header.size)]
        if header.kind is FrameKind.DIGESTS:
            self._link.take(slots)
        elif header.kind is FrameKind.HOLE:
            slots[:] = self._hasher.of_zeros(header.offset, header.size)
        self._told = self._terms.size if self._walk.over else header.offset + header.size
        self._crew.notify()

    def _end(self, done: Done) -> None:
        if self._working or done.frames != self._ledger.arrived:
            raise Violation(f"an end after {done.frames} frames of {self._ledger.arrived}")
        self._acknowledge(done.frames)
        self.done = done
        self._crew.notify()

    def _acknowledge(self, frames: int) -> None:
        if frames > self._ledger.arrived:
            raise Violation(f"{frames} frames said to be durable of {self._ledger.arrived}")
        self._ledger.flushed(frames, 0)

    def _scan(self) -> None:
        desk = Desk(self._terms)
        for offset, size in self._claims():
            if self._told < offset + size:
                self._await_digests(offset + size)
            if self._halted:
                break
            self._look(desk, offset, size)
        with self._claiming:
            self._working -= 1
            last = self._working == 0
        if last:
            self._link.send(FrameKind.TOTALS, encode(self._totals()))

    def _await_digests(self, end: int) -> None:
        self._crew.wait_for(lambda: self._halted or self._told >= end)

    def _claims(self) -> Iterator[Pair]:
        while not (self._halted or self._crew.failed):
            with self._claiming:
                stretch = next(self._stretches, None)
            if stretch is None:
                return
            yield stretch

    def _look(self, desk: Desk, offset: int, size: int) -> None:
        end = offset + size
        width = self._terms.digest_size
        while offset < end and not self._halted:
            at, data = self._scanner.next(desk, offset, end)
            expected = self._sending.table[self._terms.digests_of(at, len(data))]
            for first, last, zero in find_runs(
                data, len(data), self._terms.block_size, desk.digests, expected, width
            ):
                self._send(desk, data, at, first, last, zero=zero)
            self._count(at + len(data) - offset)
            offset = at + len(data)

    def _count(self, size: int) -> None:
        with self._claiming:
            self._looked_at += size
            self._ledger.milestone(self._looked_at)

    def _send(self, desk: Desk, data: memoryview, segment: int, start: int, end: int, *, zero: bool) -> None:
        """Send one run of a segment: bytes [start, end) of `data`."""
        size = end - start
        digests = desk.digests[self._terms.digests_of(start, size)]
        codec = Codec.NONE
        payload: tuple[bytes | memoryview, ...] = ()
        if self._sending.dry_run:
            kind = FrameKind.DIFFERS
        elif zero:
            kind = FrameKind.ZEROS
        else:
            kind = FrameKind.DATA
            codec, packed = self._packer.pack(data[start:end])
            payload = (digests, packed)
        with self._sending_order:
            self._note(segment + start, size, digests)
            self._link.send(kind, *payload, offset=segment + start, size=size, codec=codec)

    def _note(self, offset: int, size: int, digests: memoryview) -> None:
        """Note what is about to be sent."""
        self._open_gate()
        if self._sending.remember:
            self._sending.table[self._terms.digests_of(offset, size)] = digests
        self._ledger.arrive()
        self._changed += size
        blocks.mark(self._sending.changed, offset // self._terms.block_size, self._terms.blocks(size))

    def _open_gate(self) -> None:
        self._crew.check()
        if not self._gate_open:
            self._sending.gate()
            self._gate_open = True

    def _totals(self) -> Totals:
        return Totals(
            frames=self._ledger.arrived,
            looked_at=self._looked_at,
            read=self.bytes_read,
            changed=self._changed,
            complete=self.complete,
        )


def _stretch(terms: Terms) -> int:
    """Whole segments."""
    return max(STRETCH // terms.segment, 1) * terms.segment


def _workers(opened: Opened) -> int:
    """How many segments are looked at at a time: more of those that a disk is waited for."""
    return DIRECT_WORKERS if opened.is_direct else min(len(os.sched_getaffinity(0)), MOST_WORKERS)
