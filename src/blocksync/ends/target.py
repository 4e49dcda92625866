"""The target's end of a pass: tell what it holds, apply what comes, make it durable.

Tellers read ahead and send digests in order; the listener takes frames in, into a fixed number of buffers;
the appliers check each block against its digest and write it; the flusher makes what was written durable
while the rest still comes. The tellers never wait for the source, and the source never has to ask.
"""

import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blocksync._runs import has_unknown, punch
from blocksync.devices import device
from blocksync.devices.device import Opened
from blocksync.digests.hashes import Hash
from blocksync.ends.flush_tracker import Ledger
from blocksync.ends.reading import Desk, Hasher, SegmentReader
from blocksync.ends.thread_group import Crew
from blocksync.errors import Failed, telling
from blocksync.wire import blocks, compression, extent_list
from blocksync.wire.extent_list import Pair
from blocksync.wire.frames import MOST_DIGESTS, Codec, FrameHeader, FrameKind, Terms, Violation
from blocksync.wire.link import Link
from blocksync.wire.messages import Done, ErrorMessage, Totals, decode
from blocksync.wire.ring import Ring, Room

# Through the page cache one is faster than two, which get into each other's way.
APPLIERS = 1
DIRECT_APPLIERS = 2
TELLERS = 2
DIRECT_TELLERS = 4
# Memory for frames that have arrived and are not yet applied.
QUEUE_BYTES = 32 * 2**20
FEWEST_SEGMENTS = 3
# Frames without data that may wait for the disk: punching holes takes longer than naming them.
MOST_WAITING = 1024
FLUSH_EVERY = 256 * 2**20
# How often the disk is given what was applied meanwhile, so that the last flush is short.
BEGIN_FLUSH_EVERY = 0.05
# Below this a run of zeros is cheaper to write than to punch: each hole is an extent in the file system.
HOLE_WORTH = 65536
PAGE = 4096
_GLANCE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """What the target's end of one pass is about.

    `table` has one digest a block of what the target is known to hold, zero where it is not known; it is kept
    up with what is learned and applied. None: nothing is remembered. `wanted` is the range (offset, size)
    that the source does not know by itself, None for everything. `changed` is a zeroed bitmap of blocks.
    `gate` is called once, before the first write. `acknowledge` tells the source of every flush.
    """

    opened: Opened
    base: int
    terms: Terms
    hash: Hash
    extents: Sequence[Pair]
    table: memoryview | None
    changed: bytearray
    gate: Callable[[], None]
    wanted: Pair | None = None
    compare: bool = True
    dry_run: bool = False
    acknowledge: bool = False


class _Frame(NamedTuple):
    number: int
    header: FrameHeader
    room: Room | None


class _Stretch(NamedTuple):
    """A part of the extents, and what is told of it without reading it: None when it must be read."""

    offset: int
    size: int
    kind: FrameKind | None


class TargetEnd:
    """The target's end at work. `start` it, then wait until it is `finished`."""

    def __init__(self, link: Link, crew: Crew, receiving: Receiving) -> None:
        self._link = link
        self._crew = crew
        self._receiving = receiving
        self._terms = receiving.terms
        self._reader = SegmentReader(receiving.opened, receiving.terms, receiving.base)
        self._hasher = Hasher(receiving.terms, receiving.hash)
        self._appliers = DIRECT_APPLIERS if receiving.opened.is_direct else APPLIERS
        self._stretches = enumerate(self._plan_telling())
        self._claiming = threading.Lock()
        self._turn = 0
        self._told = 0
        self._whole = sum(size for _, size in receiving.extents)
        self._ring = Ring(max(QUEUE_BYTES, FEWEST_SEGMENTS * _largest_room(receiving.terms)))
        # No time limits: with one, SimpleQueue.get may wait for ever when several threads get. None is the
        # end of it (see _release).
        self._arrived: queue.SimpleQueue[_Frame | None] = queue.SimpleQueue()
        self._places = threading.BoundedSemaphore(MOST_WAITING)
        self._gate_lock = threading.Lock()
        self._gate_open = False
        self._counting = threading.Lock()
        self._ledger = Ledger()
        self.bytes_written = 0
        self.zeroed = 0
        self.bytes_changed = 0
        # As far as the source has said.
        self._source_looked_at = 0
        self._source_read = 0
        self.totals: Totals | None = None
        self._finished = False
        # Whether a flush failed: what was written may then be lost, whatever later flushes say.
        self.flush_failed = False

    def start(self) -> None:
        self._crew.start("listen", self._listen)
        for number in range(DIRECT_TELLERS if self._receiving.opened.is_direct else TELLERS):
            self._crew.start(f"tell {number}", self._tell)
        for number in range(self._appliers):
            self._crew.start(f"apply {number}", self._apply)
        self._crew.start("flush", self._flush)

    def stop(self) -> None:
        """Ask the source to stop; what it has sent by then is applied."""
        self._link.send(FrameKind.STOP)

    @property
    def finished(self) -> bool:
        return self._finished

    @property
    def gate_open(self) -> bool:
        """Whether something may have been written."""
        return self._gate_open

    @property
    def bytes_read(self) -> int:
        return self._reader.bytes_read

    @property
    def durable(self) -> int:
        """Bytes of the pass before which everything is durable, as far as the source's progress is known."""
        return self.looked_at if self._receiving.dry_run else self._ledger.passed

    @property
    def looked_at(self) -> int:
        """Bytes that the source has looked at, as far as it is known: it sends what it finds there, too."""
        return min(max(self._source_looked_at, self.bytes_changed), self._whole)

    @property
    def source_read(self) -> int:
        """Bytes that the source has read, as far as that is known."""
        return min(self._source_read, self._whole)

    @property
    def bytes_moved(self) -> int:
        """Bytes that came over the link."""
        return self._link.received

    def moment(self) -> tuple[int, int]:
        return self._ledger.applied, self._ledger.durable

    # Telling

    def _plan_telling(self) -> Iterator[_Stretch]:
        most = MOST_DIGESTS * self._terms.block_size
        for offset, size in extent_list.pieces(self._receiving.extents, most):
            yield from self._divided(offset, size)

    def _divided(self, offset: int, size: int) -> Iterator[_Stretch]:
        """Stretches that are told alike: as large as they may be, or one segment where it must be read."""
        if not self._is_wanted(offset, size):
            yield _Stretch(offset, size, FrameKind.KNOWN)
        elif not self._has_unknown(offset, size):
            yield _Stretch(offset, size, FrameKind.DIGESTS)
        else:
            segments = extent_list.pieces([(offset, size)], self._terms.segment)
            for kind, alike in itertools.groupby(segments, self._without_reading):
                for at, length in alike if kind is None else [_joined(alike)]:
                    yield _Stretch(at, length, kind)

    def _without_reading(self, segment: Pair) -> FrameKind | None:
        if self._reader.in_hole(*segment):
            return FrameKind.HOLE
        return None if self._receiving.compare else FrameKind.UNKNOWN

    def _is_wanted(self, offset: int, size: int) -> bool:
        wanted = self._receiving.wanted
        return wanted is None or (offset < sum(wanted) and wanted[0] < offset + size)

    def _has_unknown(self, offset: int, size: int) -> bool:
        if self._receiving.table is None:
            return True
        slots = self._receiving.table[self._terms.digests_of(offset, size)]
        return has_unknown(slots, self._terms.digest_size)

    def _tell(self) -> None:
        desk = Desk(self._terms)
        while not self._crew.failed:
            with self._claiming:
                number, stretch = next(self._stretches, (0, None))
            if stretch is None:
                return
            kind, payload = self._look(desk, stretch)
            self._await_turn(number)
            # Before it is said: the source may answer at once.
            self._told = stretch.offset + stretch.size
            self._link.send(kind, *payload, offset=stretch.offset, size=stretch.size)
            self._turn += 1
            self._crew.notify()

    def _await_turn(self, number: int) -> None:
        self._crew.wait_for(lambda: self._turn == number)

    def _look(self, desk: Desk, stretch: _Stretch) -> tuple[FrameKind, Sequence[memoryview]]:
        """The frame that tells a stretch."""
        kind, table = stretch.kind, self._receiving.table
        if kind is FrameKind.KNOWN or (kind is not None and table is None):
            return kind, ()
        if table is None:
            return FrameKind.DIGESTS, (self._read(desk, stretch),)
        slots = table[self._terms.digests_of(stretch.offset, stretch.size)]
        if kind is None:
            self._fill_in(slots, self._read(desk, stretch))
        elif kind is FrameKind.HOLE:
            self._fill_in(slots, memoryview(self._hasher.of_zeros(stretch.offset, stretch.size)))
        return FrameKind.DIGESTS, (slots,)

    def _read(self, desk: Desk, stretch: _Stretch) -> memoryview:
        """The digests of a stretch as it is on the device."""
        digests = desk.digests[self._terms.digests_of(0, stretch.size)]
        self._hasher.hash(self._reader.read(desk, stretch.offset, stretch.size), digests)
        return digests

    def _fill_in(self, slots: memoryview, digests: memoryview) -> None:
        """Learn what is not known yet; what is known of other blocks stays."""
        width = self._terms.digest_size
        for at in range(0, len(slots), width):
            if not any(slots[at : at + width]):
                slots[at : at + width] = digests[at : at + width]

    # Listening

    def _listen(self) -> None:
        while self.totals is None:
            self._heed(self._link.receive(self._terms))

    def _heed(self, header: FrameHeader) -> None:
        match header.kind:
            case FrameKind.DATA | FrameKind.ZEROS | FrameKind.DIFFERS:
                self._accept(header)
            case FrameKind.ALIVE:
                self._note_progress(min(header.offset, self._whole), header.size)
            case FrameKind.TOTALS:
                self._close(decode(self._link.payload(header), Totals))
            case FrameKind.ERROR:
                raise decode(self._link.payload(header), ErrorMessage).error(self._link.peer)
            case _:
                raise Violation(f"a frame {header.kind.name} to the target's end")

    def _note_progress(self, looked_at: int, read: int) -> None:
        self._ledger.milestone(looked_at)
        self._source_looked_at = max(self._source_looked_at, looked_at)
        self._source_read = max(self._source_read, read)

    def _accept(self, header: FrameHeader) -> None:
        self._check_change(header)
        first, count = header.offset // self._terms.block_size, self._terms.blocks(header.size)
        blocks.mark(self._receiving.changed, first, count)
        self.bytes_changed += header.size
        room = None
        if header.kind is FrameKind.DATA:
            digests = count * self._terms.digest_size
            room = self._ring.lend(header.payload - digests, digests)
            self._link.take(room.digests, room.data)
        else:
            self._await_place()
        self._arrived.put(_Frame(self._ledger.arrive(), header, room))

    def _check_change(self, header: FrameHeader) -> None:
        """A change lies within the extents, behind the digests told, and comes once."""
        if (header.kind is FrameKind.DIFFERS) != self._receiving.dry_run:
            raise Violation(f"a frame {header.kind.name} in a pass that is {self._receiving.dry_run=}")
        first, count = header.offset // self._terms.block_size, self._terms.blocks(header.size)
        if not extent_list.contain(self._receiving.extents, header.offset, header.size):
            raise Violation(f"{header.size} bytes at {header.offset}, which the pass is not about")
        if header.offset + header.size > self._told:
            raise Violation(f"{header.size} bytes at {header.offset}, before they were asked for")
        if blocks.any_marked(self._receiving.changed, first, count):
            raise Violation(f"{header.size} bytes at {header.offset} a second time")

    def _await_place(self) -> None:
        while not self._places.acquire(timeout=_GLANCE):
            self._crew.check()

    def _close(self, totals: Totals) -> None:
        whole = self._whole
        if (
            totals.frames != self._ledger.arrived
            or totals.looked_at > whole
            or totals.changed != self.bytes_changed
        ):
            raise Violation(f"totals of {totals.frames} frames, {totals.changed} bytes changed")
        if totals.complete and totals.looked_at != whole:
            raise Violation(f"a complete pass over {totals.looked_at} of {whole} bytes")
        self._note_progress(totals.looked_at, totals.read)
        self.totals = totals
        self._crew.notify()

    # Applying

    def _apply(self) -> None:
        desk = Desk(self._terms)
        while (frame := self._arrived.get()) is not None:
            changed = self._apply_frame(frame, desk)
            if frame.room is None:
                self._places.release()
            else:
                self._ring.take_back(frame.room)
            self._ledger.apply(frame.number, changed)
            if self.totals is not None or self._ledger.unflushed >= FLUSH_EVERY:
                self._crew.notify()

    def _apply_frame(self, frame: _Frame, spare: Desk) -> int:
        """Apply one frame; the bytes of the target that it changed."""
        header = frame.header
        if header.kind is FrameKind.DIFFERS:
            return 0
        slots = self._terms.digests_of(header.offset, header.size)
        if frame.room is None:
            digests: bytes | memoryview = self._hasher.of_zeros(header.offset, header.size)
        else:
            digests = frame.room.digests
            data = self._unpacked(frame.room, header, spare)
            self._check_digests(data, digests, header, spare)
        self._open_gate()
        table = self._receiving.table
        if table is not None:
            # Not known until the write has ended.
            table[slots] = bytes(slots.stop - slots.start)
        if frame.room is None:
            self._zero(header.offset, header.size)
        else:
            self._write(data, header.offset)
        if table is not None:
            table[slots] = digests
        return header.size

    def _unpacked(self, room: Room, header: FrameHeader, spare: Desk) -> memoryview:
        if header.codec is Codec.NONE:
            return room.data
        data = spare.data[: header.size]
        compression.unpack(header.codec, room.data, data)
        return data

    def _check_digests(self, data: memoryview, digests: memoryview, header: FrameHeader, spare: Desk) -> None:
        found = spare.digests[: len(digests)]
        self._hasher.hash(data, found)
        if found != digests:
            raise Violation(f"data for {header.size} bytes at {header.offset} that is not what was hashed")

    def _open_gate(self) -> None:
        if self._gate_open:
            return
        with self._gate_lock:
            if not self._gate_open:
                self._receiving.gate()
                self._gate_open = True

    def _zero(self, offset: int, size: int) -> None:
        opened, at = self._receiving.opened, self._receiving.base + offset
        if size >= HOLE_WORTH and at % PAGE == size % PAGE == 0 and punch(opened.fd, at, size):
            with self._counting:
                self.zeroed += size
            return
        for piece, length in extent_list.pieces([(offset, size)], self._terms.segment):
            self._write(self._reader.zeros[:length], piece)

    def _write(self, data: memoryview, offset: int) -> None:
        opened, at = self._receiving.opened, self._receiving.base + offset
        body = len(data) - len(data) % opened.align
        self._write_fully(opened.fd, data[:body], at)
        self._write_fully(opened.tail_fd, data[body:], at + body)
        with self._counting:
            self.bytes_written += len(data)

    def _write_fully(self, fd: int, data: memoryview, at: int) -> None:
        while data:
            with telling(self._receiving.opened.device.path, f"cannot be written at byte {at}"):
                count = os.pwrite(fd, data, at)
            at += count
            data = data[count:]

    # Making durable

    def _flush(self) -> None:
        try:
            self._flush_all()
        except Failed:
            self.flush_failed = True
            raise
        finally:
            self._release()

    def _release(self) -> None:
        """Let those end who wait for frames or room: all is applied, or somebody failed."""
        for _ in range(self._appliers):
            self._arrived.put(None)
        self._ring.close()

    def _flush_all(self) -> None:
        while not self._all_applied():
            if self._crew.wait_for(self._is_flush_due, BEGIN_FLUSH_EVERY):
                if not self._all_applied():
                    self._flush_behind()
            elif self._ledger.unflushed:
                device.begin_flush(self._receiving.opened)
        frames, size = self._ledger.flushing()
        if not self._receiving.dry_run:
            device.make_durable(self._receiving.opened)
        self._ledger.flushed(frames, size)
        self._finished = True
        self._crew.notify()

    def _all_applied(self) -> bool:
        return self.totals is not None and self._ledger.applied == self._ledger.arrived

    def _is_flush_due(self) -> bool:
        return self._all_applied() or self._ledger.unflushed >= FLUSH_EVERY

    def _flush_behind(self) -> None:
        frames, size = self._ledger.flushing()
        device.flush(self._receiving.opened)
        self._ledger.flushed(frames, size)
        if self._receiving.acknowledge:
            self._link.send(FrameKind.DURABLE, offset=frames)

    def done(self, stamp: str = "") -> Done:
        """The acknowledgement that everything is applied and durable."""
        return Done(
            frames=self._ledger.arrived,
            read=self.bytes_read,
            written=self.bytes_written,
            zeroed=self.zeroed,
            stamp=stamp,
        )


def _joined(ranges: Iterable[Pair]) -> Pair:
    """One range of those that follow each other."""
    (offset, size), *rest = ranges
    return offset, size + sum(length for _, length in rest)


def _largest_room(terms: Terms) -> int:
    """What a segment takes up while it waits."""
    return Ring.size_of(terms.segment, terms.blocks(terms.segment) * terms.digest_size)
