"""One end of ours at work, the other one played by a test."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blocksync.digests.hashes import XXH3, Hash
from blocksync.ends.source import SourceEnd
from blocksync.ends.target import TargetEnd
from blocksync.ends.thread_group import Crew
from blocksync.wire.frames import FrameHeader, FrameKind, Terms
from blocksync.wire.link import Link

BLOCK = 4096
BLOCKS = 10
TAIL = 100
SIZE = BLOCK * (BLOCKS - 1) + TAIL


@dataclass(slots=True)
class Served:
    """An end of ours at work on `link`, and the link on which a test plays the other one."""

    link: Link
    end: SourceEnd | TargetEnd
    crew: Crew
    peer: Link
    terms: Terms
    path: Path
    changed: bytearray
    gates: list[str]

    def finish(self) -> None:
        """Wait for the end; raises what failed."""
        self.crew.finish(lambda: self.end.finished)

    def close(self) -> None:
        """End every thread."""
        self.link.close()
        self.crew.join()


Serve = Callable[..., Served]


def digests_of(data: bytes, kind: Hash = XXH3) -> bytes:
    """The digests of the blocks of `data`, one after the other."""
    return b"".join(kind.digest(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK))


def digests_heard(served: Served) -> bytes:
    """Everything that a target's end of ours tells before it waits for changes."""
    heard = bytearray()
    end = 0
    while end < SIZE:
        header = served.peer.receive(served.terms)
        if header.kind is not FrameKind.ALIVE:
            assert (header.kind, header.offset) == (FrameKind.DIGESTS, end)
            heard += served.peer.payload(header)
            end = header.offset + header.size
    return bytes(heard)


def next_frame(served: Served) -> tuple[FrameHeader, bytearray]:
    """The next frame of an end of ours that is not about being alive."""
    while True:
        header = served.peer.receive(served.terms)
        payload = served.peer.payload(header)
        if header.kind is not FrameKind.ALIVE:
            return header, payload
