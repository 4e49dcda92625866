"""Far ends in threads of the test, behind a proxy that counts frames and cuts the link at one of them."""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO

from blocksync.agent import installed
from blocksync.wire.frames import GREETING, HEADER, FrameHeader, FrameKind

FAR_TO_NEAR, NEAR_TO_FAR = "far to near", "near to far"


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the link is cut: at a frame's start or in its middle. ALIVE does not count.

    A link that `stalls` is not cut: nothing more goes through, and nobody is told.
    """

    direction: str
    frame: int
    middle: bool
    stalls: bool = False


@dataclass(slots=True)
class PlayedChannel:
    """A channel to `agent.serve` in a thread."""

    stdin: FileIO
    stdout: FileIO
    threads: list[threading.Thread]
    hang_up: Callable[[], None]

    def close(self) -> None:
        self.hang_up()
        for stream in (self.stdin, self.stdout):
            with suppress(OSError):
                stream.close()
        for thread in self.threads:
            thread.join(10)
            if thread.is_alive():
                raise RuntimeError(f"{thread.name} hangs")

    def wait(self, timeout: float | None) -> int:
        return 255

    def stderr_tail(self) -> str:
        return ""


@dataclass(slots=True)
class PlayedTransport:
    """Runs the agent in a thread. `seen` lists the frames that went through, by direction."""

    cut: Cut | None = None
    seen: dict[str, list[FrameHeader]] = field(default_factory=lambda: {FAR_TO_NEAR: [], NEAR_TO_FAR: []})
    was_cut: bool = False

    def run(self, argv: Sequence[str]) -> PlayedChannel:
        near, near_proxy = socket.socketpair()
        far, far_proxy = socket.socketpair()
        proxies = (near_proxy, far_proxy)

        def hang_up() -> None:
            for end in proxies:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def relay(name: str, source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError, EOFError):
                self._relay(name, source, sink)
                if self.cut is not None and self.cut.stalls:
                    # The other direction says nothing any more either.
                    return
            hang_up()

        def serve() -> None:
            with far:
                installed.serve(far.fileno(), far.fileno())

        threads = [
            threading.Thread(target=relay, name="far to near", args=(FAR_TO_NEAR, far_proxy, near_proxy)),
            threading.Thread(target=relay, name="near to far", args=(NEAR_TO_FAR, near_proxy, far_proxy)),
            threading.Thread(target=serve, name="far end"),
        ]
        for thread in threads:
            thread.start()
        ends = FileIO(os.dup(near.fileno()), "w"), FileIO(near.detach(), "r")
        return PlayedChannel(*ends, threads, hang_up)

    def close(self) -> None:
        return None

    def describe(self) -> str:
        return "the far host"

    def _relay(self, name: str, source: socket.socket, sink: socket.socket) -> None:
        """Move frames until the cut."""
        sink.sendall(_exactly(source, len(GREETING)))
        while not self.was_cut:
            data = _exactly(source, HEADER.size)
            header = FrameHeader.unpack(data)
            data += _exactly(source, header.payload)
            if header.kind is not FrameKind.ALIVE:
                if self.cut is not None and (name, len(self.seen[name])) == (
                    self.cut.direction,
                    self.cut.frame,
                ):
                    sink.sendall(data[: len(data) // 2] if self.cut.middle else b"")
                    self.was_cut = True
                    return
                self.seen[name].append(header)
            if not self.was_cut:
                sink.sendall(data)


def _exactly(source: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = source.recv(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
