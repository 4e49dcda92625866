"""Bytes both ways over several TLS streams, dealt out by their place.

Bytes [i * STRIPE, (i + 1) * STRIPE) of either direction go by stream i mod n of that direction. So their
order is known without a word about it, and each stream is filled while others still drain. Every stream
carries one direction only: an OpenSSL connection may not be read and written at once by two threads.
"""

import select
import ssl
import time
from collections.abc import Callable, Sequence

from blocksync.transports.streams import Streams

STRIPE = 256 << 10


class _Lane:
    """One direction: whose turn it is, and for how many bytes."""

    def __init__(self, streams: Sequence[ssl.SSLSocket], event: int) -> None:
        self._streams = streams
        self._polls = [_poll(stream, event) for stream in streams]
        self._turn = 0
        self._left = STRIPE

    def move(
        self,
        buffers: Sequence[memoryview],
        milliseconds: int,
        step: Callable[[ssl.SSLSocket, memoryview], int],
    ) -> tuple[int, bool]:
        """Bytes moved before all were, the time was up or the end came; whether it came."""
        until = time.monotonic() + milliseconds / 1000
        done = 0
        for buffer in buffers:
            rest = buffer
            while rest:
                # After a stream that was full the same bytes are offered again: OpenSSL insists on that.
                count = self._step(rest[: self._left], until, step)
                if count <= 0:
                    return done, count == 0
                done += count
                rest = rest[count:]
                self._advance(count)
        return done, False

    def _step(self, piece: memoryview, until: float, step: Callable[[ssl.SSLSocket, memoryview], int]) -> int:
        """Bytes moved; 0 at the end, -1 when the time is up."""
        while True:
            try:
                return step(self._streams[self._turn], piece)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                left = until - time.monotonic()
                if left <= 0 or not self._polls[self._turn].poll(left * 1000):
                    return -1

    def _advance(self, count: int) -> None:
        self._left -= count
        if self._left == 0:
            self._turn = (self._turn + 1) % len(self._streams)
            self._left = STRIPE


class Stripes:
    """A link's carrier (see blocksync.wire.link) over `outgoing` and `incoming` streams."""

    def __init__(self, outgoing: Sequence[ssl.SSLSocket], incoming: Sequence[ssl.SSLSocket]) -> None:
        for stream in (*outgoing, *incoming):
            stream.setblocking(False)
        self._out = _Lane(outgoing, select.POLLOUT)
        self._in = _Lane(incoming, select.POLLIN)

    @classmethod
    def of_near(cls, streams: Streams) -> "Stripes":
        return cls(streams.up, streams.down)

    @classmethod
    def of_far(cls, streams: Streams) -> "Stripes":
        return cls(streams.down, streams.up)

    def fill(self, buffers: Sequence[memoryview], milliseconds: int) -> tuple[int, bool]:
        return self._in.move(buffers, milliseconds, _receive)

    def drain(self, buffers: Sequence[memoryview], milliseconds: int) -> int:
        return self._out.move(buffers, milliseconds, _send)[0]


def _receive(stream: ssl.SSLSocket, into: memoryview) -> int:
    try:
        return stream.recv_into(into)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return 0


def _send(stream: ssl.SSLSocket, data: memoryview) -> int:
    return stream.send(data)


def _poll(stream: ssl.SSLSocket, event: int) -> select.poll:
    poll = select.poll()
    poll.register(stream, event)
    return poll
