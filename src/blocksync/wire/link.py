"""A link: frames over a carrier, with a deadline on everything.

One thread receives; any thread sends, one frame at a time. An end that has nothing to say says so every few
seconds (ALIVE), so that silence means a dead link or a dead peer, and never a long flush.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from blocksync import _flow
from blocksync.errors import Failed
from blocksync.wire.frames import GREETING, HEADER, Codec, FrameHeader, FrameKind, Terms, check

# Silence for this long is a stall: below the 30 seconds that are promised.
PATIENCE = 25.0
BEAT = 0.5
_GLANCE = 0.1
_GLANCE_MS = round(_GLANCE * 1000)
_PIPE = 2**20
_SMALLEST_SLICE = 4096

Bytes = bytes | bytearray | memoryview
Moment = Callable[[], tuple[int, int]]


class Lost(Failed):
    """The link ended, or nothing was heard on it for too long.

    `heard_out` says that it was noticed in listening: the other end has no word on why.
    """

    def __init__(self, peer: str, cause: str, *, heard_out: bool) -> None:
        super().__init__(peer, cause, "check the connection, then run the same command again to go on")
        self.heard_out = heard_out


class Carrier(Protocol):
    """Bytes both ways, for one thread that reads beside one that writes. Both raise OSError."""

    def fill(self, buffers: Sequence[memoryview], milliseconds: int) -> tuple[int, bool]:
        """Fill buffers with what comes within so many milliseconds: bytes, and whether the end came."""

    def drain(self, buffers: Sequence[memoryview], milliseconds: int) -> int:
        """Write buffers as far as they are taken within so many milliseconds: bytes."""


class Descriptors:
    """A carrier over two descriptors, which become non-blocking and stay the caller's."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        for fd in {read_fd, write_fd}:
            os.set_blocking(fd, False)
            with suppress(OSError):
                # Pipes only: both ends are woken less often.
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)

    def fill(self, buffers: Sequence[memoryview], milliseconds: int) -> tuple[int, bool]:
        moved: tuple[int, bool] = _flow.fill(self._read_fd, buffers, milliseconds)
        return moved

    def drain(self, buffers: Sequence[memoryview], milliseconds: int) -> int:
        moved: int = _flow.drain(self._write_fd, buffers, milliseconds)
        return moved


class Link:
    """Frames both ways over `read_fd` and `write_fd` (see Descriptors), until they go over another carrier.

    `peer` names the other end in errors. `bytes_per_second` bounds what is sent.
    """

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        *,
        peer: str,
        patience: float = PATIENCE,
        bytes_per_second: int | None = None,
    ) -> None:
        self.peer = peer
        self.sent = 0
        self.received = 0
        # Seconds that sending took so far: with `sent`, how fast the link takes bytes.
        self.busy = 0.0
        self.patience = patience
        # When listening ends, however much comes; None for never.
        self.deadline: float | None = None
        self._rate = bytes_per_second
        self._due = 0.0
        self._incoming: Carrier = Descriptors(read_fd, write_fd)
        self._outgoing: Carrier = self._incoming
        self._heard = self._said = self._beaten = time.monotonic()
        self._moment: Moment | None = None
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._torn = False

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        """Let whoever waits on the link give up; nothing more is sent."""
        self._closed.set()

    def limit(self, bytes_per_second: int | None) -> None:
        """Bound what is sent from now on."""
        self._rate = bytes_per_second

    def greet(self) -> None:
        with self._sending:
            self._write([memoryview(GREETING)])

    def send_program(self, program: bytes) -> None:
        """Send the portable agent to its loader."""
        with self._sending:
            self._write([memoryview(program)])

    def send(
        self, kind: FrameKind, *payload: Bytes, offset: int = 0, size: int = 0, codec: Codec = Codec.NONE
    ) -> None:
        """Send one frame. Raises Lost."""
        with self._sending:
            self._write(_frame(kind, payload, offset, size, codec))
            # Who sends all the time leaves the beat no turn, and nobody there would know how far this is.
            if self._moment is not None and time.monotonic() - self._beaten >= BEAT:
                self._beat(self._moment)

    def send_last(self, carrier: Carrier, kind: FrameKind, *payload: Bytes) -> None:
        """Send one frame; what is sent after it goes over `carrier`. Raises Lost."""
        with self._sending:
            self._write(_frame(kind, payload))
            self._outgoing = carrier

    def receive_over(self, carrier: Carrier) -> None:
        """What comes from here on comes over `carrier`. For the thread that receives, between two frames."""
        self._incoming = carrier

    def receive(self, terms: Terms) -> FrameHeader:
        """The next frame's header, checked; its payload must be taken next. Raises Lost, Violation."""
        data = bytearray(HEADER.size)
        self.take(memoryview(data))
        return check(FrameHeader.unpack(data), terms)

    def payload(self, header: FrameHeader) -> bytearray:
        """The whole payload of a frame whose header was checked."""
        data = bytearray(header.payload)
        self.take(memoryview(data))
        return data

    def take(self, *into: memoryview) -> None:
        """Fill buffers with the bytes that come next. Raises Lost."""
        views = [view for view in into if len(view)]
        since = time.monotonic()
        while views:
            try:
                count, ended = self._incoming.fill(views, _GLANCE_MS)
            except OSError as error:
                raise self._lost(error.strerror or str(error), heard_out=True) from error
            if count:
                self._heard = time.monotonic()
                self.received += count
                views = _rest(views, count)
            if ended:
                raise self._lost("the connection ended", heard_out=True)
            if not count:
                self._be_patient(max(since, self._heard))
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise self._lost("it has not introduced itself in time", heard_out=True)

    def beat(self, moment: Moment) -> None:
        """Say ALIVE, with the two counts of `moment()`, every half second, between the frames that are sent;
        until closed.
        """
        self._moment = moment
        while not self._closed.wait(BEAT):
            # Whoever holds the lock is sending, and says it after that frame.
            if self._sending.acquire(blocking=False):
                try:
                    self._beat(moment)
                finally:
                    self._sending.release()

    def _beat(self, moment: Moment) -> None:
        offset, size = moment()
        self._write(_frame(FrameKind.ALIVE, (), offset, size))
        self._beaten = time.monotonic()

    def _write(self, views: list[memoryview]) -> None:
        if self._torn:
            raise self._lost("the connection broke in the middle of a frame")
        # Set until the frame is out: after a part of one, nothing else may follow.
        self._torn = True
        self._write_fully(views)
        self._torn = False

    def _write_fully(self, views: list[memoryview]) -> None:
        since = time.monotonic()
        while views:
            piece = self._allowed(views)
            try:
                count = self._outgoing.drain(piece, _GLANCE_MS)
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error
            if not count:
                self._be_patient(max(since, self._said, self._heard))
                continue
            self._said = time.monotonic()
            self.sent += count
            views = _rest(views, count)
        self.busy += time.monotonic() - since

    def _allowed(self, views: list[memoryview]) -> list[memoryview]:
        """As much of a frame as the rate lets through now; waits for it."""
        if self._rate is None:
            return views
        length = min(sum(map(len, views)), max(self._rate // 10, _SMALLEST_SLICE))
        while (pause := self._due - time.monotonic()) > 0 and not self._closed.wait(min(pause, _GLANCE)):
            pass
        # What was not used in the past is not saved up.
        self._due = max(self._due, time.monotonic()) + length / self._rate
        return _first(views, length)

    def _be_patient(self, last_sign: float) -> None:
        """Nothing moved since `last_sign`: raises Lost when that is too long ago, or the link was closed."""
        if self._closed.is_set():
            raise self._lost("the connection was closed here")
        silent = time.monotonic() - last_sign
        if silent > self.patience:
            raise self._lost(f"nothing moved for {silent:.0f} seconds", heard_out=True)

    def _lost(self, cause: str, *, heard_out: bool = False) -> Lost:
        return Lost(self.peer, cause, heard_out=heard_out)


def _frame(
    kind: FrameKind, payload: Sequence[Bytes], offset: int = 0, size: int = 0, codec: Codec = Codec.NONE
) -> list[memoryview]:
    """A frame as the buffers that it travels from."""
    views = [memoryview(part).cast("B") for part in payload]
    header = FrameHeader(kind, codec, sum(map(len, views)), offset, size)
    return [memoryview(header.pack()), *views]


def _rest(views: list[memoryview], count: int) -> list[memoryview]:
    """What is left of buffers after their first `count` bytes."""
    for number, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[number + 1 :]]
        count -= len(view)
    return []


def _first(views: list[memoryview], length: int) -> list[memoryview]:
    """The first `length` bytes of buffers."""
    taken = []
    for view in views:
        if length <= 0:
            break
        taken.append(view[:length])
        length -= len(taken[-1])
    return taken
