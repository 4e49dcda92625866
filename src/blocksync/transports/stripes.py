"""One stream of bytes over several TLS streams, in pieces dealt out in turn.

A piece is its length (u32, big-endian, at most 256 KiB) and its bytes. Piece i goes to stream i mod n, and
is taken from there: the turn is the order, so nothing is numbered and nothing queued. A length of 0 on each
stream is the end; a connection that ends without it was cut. Every stream carries one direction only: an
OpenSSL connection may not be read and written at once by two threads.
"""

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Sequence

PIECE_BYTES = 256 << 10
_LENGTH = struct.Struct(">I")


class Stripes:
    """Threads, one a stream, that move bytes between a descriptor, which is closed at the end, and streams.

    `error` is the first thing that went wrong, after which nothing moves any more.
    """

    def __init__(self, descriptor: int, streams: Sequence[ssl.SSLSocket]) -> None:
        self.error: Exception | None = None
        self._descriptor = descriptor
        self._streams = streams
        self._turns = [threading.Semaphore(0) for _ in streams]
        self._turns[0].release()
        self._running = len(streams)
        self._lock = threading.Lock()
        numbers = range(len(streams))
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in numbers]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float | None = None) -> None:
        """Wait until everything has moved; `seconds` for each stream at most."""
        for thread in self._threads:
            thread.join(seconds)

    def cut(self) -> None:
        """Stop the streams at once; what has not moved is lost."""
        for stream in self._streams:
            # SSLSocket.shutdown forgets its keys first: a thread that is sending would go on in the clear.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(stream, socket.SHUT_RDWR)

    def _run(self, number: int) -> None:
        try:
            while self.error is None and self._move(number):
                pass
        except (OSError, ValueError) as error:
            self._fail(error)
        with self._lock:
            self._running -= 1
            last = self._running == 0
        if last:
            os.close(self._descriptor)

    def _move(self, number: int) -> bool:
        """Move one piece by stream `number`; whether there are more."""
        raise NotImplementedError

    def _await_turn(self, number: int) -> None:
        self._turns[number].acquire()
        if self.error is not None:
            raise ConnectionAbortedError(self.error)

    def _pass_turn(self, number: int) -> None:
        self._turns[(number + 1) % len(self._turns)].release()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self.error = self.error or error
        self.cut()
        for turn in self._turns:
            turn.release()


class Scatter(Stripes):
    """What is read from the descriptor goes to the streams; the end of it too."""

    def __init__(self, descriptor: int, streams: Sequence[ssl.SSLSocket]) -> None:
        super().__init__(descriptor, streams)
        self._ended = False
        self._pieces = [memoryview(bytearray(_LENGTH.size + PIECE_BYTES)) for _ in streams]

    def _move(self, number: int) -> bool:
        piece = self._pieces[number]
        self._await_turn(number)
        length = 0 if self._ended else os.readv(self._descriptor, [piece[_LENGTH.size :]])
        self._ended = length == 0
        self._pass_turn(number)
        _LENGTH.pack_into(piece, 0, length)
        self._streams[number].sendall(piece[: _LENGTH.size + length])
        return length > 0


class Gather(Stripes):
    """What comes by the streams is written to the descriptor, in the order in which it was scattered."""

    def __init__(self, descriptor: int, streams: Sequence[ssl.SSLSocket]) -> None:
        super().__init__(descriptor, streams)
        self._unwanted = False
        self._pieces = [memoryview(bytearray(PIECE_BYTES)) for _ in streams]

    def _move(self, number: int) -> bool:
        piece = self._pieces[number]
        _receive(self._streams[number], piece[: _LENGTH.size])
        length = int.from_bytes(piece[: _LENGTH.size], "big")
        if length > PIECE_BYTES:
            raise ValueError(f"a piece of {length} bytes is announced, {PIECE_BYTES} is the most")
        _receive(self._streams[number], piece[:length])
        self._await_turn(number)
        self._write(piece[:length])
        self._pass_turn(number)
        return length > 0

    def _write(self, rest: memoryview) -> None:
        try:
            while rest and not self._unwanted:
                rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError:
            # The reader has seen enough. Its peer learns that from it, not from a stream that stalls.
            self._unwanted = True


def _receive(stream: ssl.SSLSocket, rest: memoryview) -> None:
    while rest:
        count = stream.recv_into(rest)
        if count == 0:
            raise ConnectionResetError("the stream was cut before its end")
        rest = rest[count:]
