"""What is asked of a control connection: OpenSSH's PROTOCOL.mux, version 4.

Packets are a length (u32, big-endian) and so many bytes of u32s here: a type, mostly the number of the
request, and what belongs to the type. Asked by `ssh -O`, each would cost a process.
"""

import socket
import struct
from contextlib import suppress
from pathlib import Path

_VERSION = 4
_HELLO, _ALIVE_CHECK, _TERMINATE = 0x1, 0x10000004, 0x10000005
_ALIVE = 0x80000005
_SECONDS = 5.0
_MOST_BYTES = 4096


def is_alive(path: Path) -> bool:
    """Whether a control connection answers at a socket."""
    with suppress(OSError, struct.error):
        return _asked(path, _ALIVE_CHECK)[:1] == (_ALIVE,)
    return False


def end(path: Path) -> None:
    """End the control connection at a socket, if there is one. Does not wait for its end."""
    with suppress(OSError, struct.error):
        _asked(path, _TERMINATE)


def _asked(path: Path, request: int) -> tuple[int, ...]:
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(_SECONDS)
        control.connect(str(path))
        control.sendall(_packet(_HELLO, _VERSION) + _packet(request, 0))
        _hear(control)
        return _hear(control)


def _packet(*words: int) -> bytes:
    return struct.pack(f">{1 + len(words)}I", 4 * len(words), *words)


def _hear(control: socket.socket) -> tuple[int, ...]:
    (length,) = struct.unpack(">I", _take(control, 4))
    body = _take(control, min(length, _MOST_BYTES))
    return struct.unpack_from(f">{len(body) // 4}I", body)


def _take(control: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        piece = control.recv(count - len(taken))
        if not piece:
            raise ConnectionResetError("the control connection ended")
        taken += piece
    return taken
