"""The TCP connections that carry a stripe each, and the byte by which the near end says which."""

import contextlib
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from blocksync.errors import Failed
from blocksync.transports.certificates import Identity

# A link that is dead is given up after this; 30 s are promised.
_SILENCE_SECONDS = 27
# Strangers who find the port: how long one may keep a thread busy, and how many are heard in all.
_HANDSHAKE_SECONDS = 3.0
_CALLERS = 64


@dataclass(frozen=True, slots=True)
class Streams:
    """Established TLS streams: `up` from the near end to the far one, `down` the other way."""

    up: tuple[ssl.SSLSocket, ...]
    down: tuple[ssl.SSLSocket, ...]

    def close(self) -> None:
        for stream in (*self.up, *self.down):
            stream.close()


def connect(
    where: tuple[str, int], identity: Identity, peer: bytes, *, each_way: int, seconds: float
) -> Streams:
    """The near end: `each_way` streams up and as many down, to `where` (address, port) the far end listens.

    Raises OSError when the port cannot be reached within `seconds` and Failed when another end is there.
    """

    def one(number: int) -> ssl.SSLSocket:
        with contextlib.ExitStack() as undo:
            stream = undo.enter_context(socket.create_connection(where, seconds))
            secured = undo.enter_context(identity.connect(stream, peer))
            secured.sendall(bytes([number]))
            undo.pop_all()
        return _steady(secured)

    with ThreadPoolExecutor(2 * each_way) as pool:
        futures = [pool.submit(one, number) for number in range(2 * each_way)]
    made = tuple(future.result() for future in futures if future.exception() is None)
    for future in futures:
        error = future.exception()
        if error is not None:
            Streams(made, ()).close()
            raise error
    return Streams(made[:each_way], made[each_way:])


class Listener:
    """The far end: a port (0: any free one) of an address of this host where only the end with the
    certificate `peer` is let in, once for each stream. Raises OSError when it cannot listen there.
    """

    def __init__(self, address: str, port: int, identity: Identity, peer: bytes, each_way: int) -> None:
        self._identity = identity
        self._peer = peer
        self._each_way = each_way
        self._came: dict[int, ssl.SSLSocket] = {}
        self._changed = threading.Condition()
        self._open = True
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, port), family=family, backlog=2 * each_way)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._listen, name="tls listener", daemon=True).start()

    def streams(self, seconds: float) -> Streams | None:
        """All of them once they have come; None when one has not within `seconds`. Nobody else is let in."""
        wanted = range(2 * self._each_way)
        with self._changed:
            self._changed.wait_for(lambda: len(self._came) == len(wanted), seconds)
            self._open = False
            came = dict(self._came)
        # A thread that is in accept() sees this and not the close alone.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if len(came) < len(wanted):
            Streams(tuple(came.values()), ()).close()
            return None
        made = tuple(came[number] for number in wanted)
        return Streams(made[: self._each_way], made[self._each_way :])

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(_CALLERS):
                stream, _ = self._socket.accept()
                threading.Thread(target=self._let_in, args=(stream,), daemon=True).start()

    def _let_in(self, stream: socket.socket) -> None:
        with contextlib.suppress(OSError, Failed), contextlib.ExitStack() as undo:
            undo.enter_context(stream).settimeout(_HANDSHAKE_SECONDS)
            secured = undo.enter_context(self._identity.accept(stream, self._peer))
            (number,) = secured.recv(1) or b"\xff"
            with self._changed:
                if not self._open or number >= 2 * self._each_way or number in self._came:
                    return
                self._came[number] = _steady(secured)
                self._changed.notify_all()
            undo.pop_all()


def _steady(stream: ssl.SSLSocket) -> ssl.SSLSocket:
    """Block for as long as the link lives, and notice when it does not."""
    stream.settimeout(None)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE_SECONDS // 3)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENCE_SECONDS // 3)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_SECONDS * 1000)
    return stream
