"""The far end of a pass: `blocksync agent`, on its standard streams, told by the near end what to do.

It measures and guards the device on its own host, and serves one pass over it, as source or as target.
"""

import mmap
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import structs

from blocksync.devices import device as devices
from blocksync.devices import guards
from blocksync.devices import target as targets
from blocksync.devices.device import Device, Opened
from blocksync.devices.target import Range
from blocksync.digests import history
from blocksync.digests.hashes import HASHES, Hash
from blocksync.ends.source import Sending, SourceEnd
from blocksync.ends.target import Receiving, TargetEnd
from blocksync.ends.thread_group import Crew
from blocksync.errors import BlocksyncError, ExitCode, Refused
from blocksync.transports.interface import Closes
from blocksync.wire import extent_list, frames
from blocksync.wire.compression import CODECS
from blocksync.wire.conversation import await_greeting, await_hello, boot, expect, receive_extents, say
from blocksync.wire.extent_list import Pair
from blocksync.wire.frames import FrameHeader, FrameKind, Terms, Violation
from blocksync.wire.link import Link, Lost
from blocksync.wire.messages import (
    PROTOCOL,
    TLS,
    ErrorMessage,
    FarDevice,
    Hello,
    Offer,
    PassOrder,
    Ready,
    Start,
    StatedMark,
    decode,
)

BY_NAME = {known.name: known for known in HASHES}


def main() -> ExitCode:
    """`blocksync agent`: serve the near end on the standard streams, on which nobody else may write."""
    read_fd, write_fd = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return serve(read_fd, write_fd)


def serve(read_fd: int, write_fd: int) -> ExitCode:
    """Serve one pass to the near end on these descriptors; errors are the near end's to show."""
    link = Link(read_fd, write_fd, peer="the near end")
    agent = _Agent(link)
    try:
        agent.serve()
    except Lost:
        return ExitCode.FAILED
    except BlocksyncError as error:
        with suppress(Lost):
            say(link, ErrorMessage.of(error))
        return error.exit_code
    finally:
        agent.close()
    return ExitCode.DONE


def _no_moment() -> tuple[int, int]:
    return 0, 0


class _Agent:
    """One conversation with a near end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._crew = Crew()
        self._moment: Callable[[], tuple[int, int]] = _no_moment
        self._held = ExitStack()
        # Of a target, when it was described.
        self._stamp = ""

    def serve(self) -> None:
        self._link.greet()
        say(
            self._link,
            Hello(protocol=PROTOCOL, hashes=tuple(BY_NAME), codecs=CODECS, boot=boot(), carriers=(TLS,)),
        )
        await_greeting(self._link)
        self._crew.start("beat", lambda: self._link.beat(self._now))
        await_hello(self._link)
        job = expect(self._link, PassOrder, {FrameKind.OFFER: self._move})
        (self._serve_source if job.role == "source" else self._serve_target)(job)

    def _move(self, header: FrameHeader) -> None:
        """Go on over streams beside these, if the near end can reach them."""
        # Slow to load, and for this only.
        from blocksync.remote import tls_upgrade  # noqa: PLC0415

        offer = decode(self._link.payload(header), Offer)
        tls_upgrade.move_far(self._link, offer, self._keep)

    def _keep(self, streams: Closes) -> None:
        self._held.callback(streams.close)

    def _now(self) -> tuple[int, int]:
        return self._moment()

    def close(self) -> None:
        """End every thread, and only then let go of the devices that they use."""
        self._link.close()
        self._crew.join()
        self._held.close()

    def _serve_source(self, job: PassOrder) -> None:
        device = devices.measure(Path(job.path))
        signature = guards.probe(device.path, 0, device.size) if job.signature else None
        described = _described(device, StatedMark.of(signature) if signature else None)
        if job.origin is not None:
            described = structs.replace(described, identity=devices.measure(Path(job.origin)).identity)
        say(self._link, described)
        start = expect(self._link, Start)
        terms, kind, extents = self._agree(start)
        if start.size > device.size:
            raise Refused(device.path, f"has {device.size} bytes, not {start.size}", guard="size")
        direct = devices.goes_direct(device, 0, direct=start.direct, cache=start.cache)
        opened = self._held.enter_context(devices.open_source(device, direct=direct))
        say(self._link, Ready(identity=device.identity))
        sending = Sending(
            opened=opened,
            terms=terms,
            hash=kind,
            extents=extents,
            table=memoryview(mmap.mmap(-1, max(terms.all_blocks * terms.digest_size, 1))),
            changed=bytearray(-(-terms.all_blocks // 8)),
            codecs=start.codecs,
            gate=lambda: None,
            dry_run=start.dry_run,
        )
        self._see_through(SourceEnd(self._link, self._crew, sending))

    def _serve_target(self, job: PassOrder) -> None:
        path = Path(job.path)
        device = targets.find(path)
        start = self._described_target(device)
        terms, kind, extents = self._agree(start)
        target = Range(
            path=path,
            offset=start.target_offset,
            size=start.size,
            direct=start.direct,
            cache=start.cache,
            dry_run=start.dry_run,
            overrides=frozenset(start.overrides),
        )
        targets.guard(target, device)
        if device is not None and not (start.dry_run or start.trusted):
            known = frozenset(mark.signature for mark in start.known)
            guards.only_signatures(known, device, target.offset, target.size, target.overrides)
        opened = self._held.enter_context(targets.opened(target, device))
        self._receive(opened, start, terms, kind, extents)

    def _described_target(self, device: Device | None) -> Start:
        """Describe the target, and read from it what the near end asks for until it starts the pass."""
        if device is None:
            say(self._link, FarDevice(kind="missing", size=0, sector_size=devices.FILE_SECTOR))
            return expect(self._link, Start)
        with devices.open_source(device, direct=device.is_block) as opened:
            self._stamp = history.stamp(opened)
            say(self._link, _described(device, stamp=self._stamp))
            return expect(self._link, Start, {FrameKind.READ: lambda header: self._read(opened, header)})

    def _read(self, opened: Opened, header: FrameHeader) -> None:
        if header.offset + header.size > opened.device.size:
            raise Violation(f"a read of {header.size} bytes at {header.offset}")
        data = devices.read_opened(opened, header.offset, header.size)
        self._link.send(FrameKind.BYTES, data, offset=header.offset, size=header.size)

    def _receive(self, opened: Opened, start: Start, terms: Terms, kind: Hash, extents: list[Pair]) -> None:
        now = "" if start.dry_run else history.stamp(opened)
        if self._stamp and now and now != self._stamp:
            raise Refused(
                opened.device.path,
                "was written by somebody else since the pass began",
                "find out who writes to it, then run the command again",
                guard="changed",
            )
        if not start.trusted:
            # After a flush that failed, the cache may show what was lost.
            devices.forget_pages(opened)
        say(self._link, Ready(identity=opened.device.identity, stamp=now))
        receiving = Receiving(
            opened=opened,
            base=start.target_offset,
            terms=terms,
            hash=kind,
            extents=extents,
            table=None,
            changed=bytearray(-(-terms.all_blocks // 8)),
            gate=lambda: None,
            wanted=start.wanted,
            compare=start.compare,
            dry_run=start.dry_run,
            acknowledge=True,
        )
        end = TargetEnd(self._link, self._crew, receiving)
        self._see_through(end)
        after = "" if start.dry_run else history.stamp(opened)
        say(self._link, end.done(after))

    def _see_through(self, end: SourceEnd | TargetEnd) -> None:
        self._moment = end.moment
        end.start()
        self._crew.finish(lambda: end.finished)

    def _agree(self, start: Start) -> tuple[Terms, Hash, list[Pair]]:
        """The terms, hash and extents of the pass that the near end wants. Raises Violation."""
        kind = BY_NAME.get(start.hash)
        block = start.block_size
        if kind is None or block & (block - 1):
            raise Violation(f"a pass by {start.hash[:64]!r} in blocks of {block} bytes")
        self._link.limit(start.bytes_per_second)
        terms = frames.terms(start.size, block, kind.size)
        pairs = None if start.extents is None else receive_extents(self._link, start.extents)
        return terms, kind, extent_list.of_pass(terms, pairs)


def _described(device: Device, signature: StatedMark | None = None, stamp: str = "") -> FarDevice:
    return FarDevice(
        kind=device.kind,
        size=device.size,
        sector_size=device.sector_size,
        number=device.number,
        identity=device.identity,
        signature=signature,
        stamp=stamp,
        data=devices.data_size(device),
    )
