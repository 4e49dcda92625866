"""SSH without an `ssh` program, by the paramiko library: for control, and for data where nothing else is.

It passes about half of what OpenSSH passes. Of ssh_config(5) it follows HostName, Port, User, IdentityFile,
IdentitiesOnly and the known_hosts files; a host behind a proxy or a jump host needs the real `ssh`.
"""

import contextlib
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, cast

import paramiko

from blocksync.errors import Failed
from blocksync.hosts.name import HostName
from blocksync.transports.child import TAIL_BYTES
from blocksync.transports.command_line import quoted
from blocksync.transports.failures import HostKeyUnknown, not_the_fingerprint, unreachable
from blocksync.transports.host_keys import FAMILIES, fingerprint
from blocksync.transports.interface import BROKEN

_CONNECT_SECONDS = 15.0
_ASK_SECONDS = 9.0
# 30 s are promised; it is looked at every second.
_SILENCE_SECONDS = 25.0
_PIECE = 256 << 10
# struct tcp_info in linux/tcp.h: milliseconds since data last came.
_TCP_INFO_LAST_DATA_RECEIVED = struct.Struct("52xI")

# Its errors are raised to us as well; on the terminal they would tear the progress display.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class ParamikoSettings:
    """What ssh_config(5) says of a host, as far as it is followed here."""

    address: str
    port: int
    user: str | None
    identities: list[str]
    identities_only: bool
    known_hosts: tuple[Path, ...]

    @property
    def known_as(self) -> str:
        """The host's name in known_hosts."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


def configuration(host: HostName, config: Path | None) -> ParamikoSettings:
    """Read `config`, or the user's own. Raises Failed for one that cannot be read or that needs `ssh`."""
    path = config if config is not None else Path.home() / ".ssh/config"
    values = paramiko.SSHConfigDict()
    if path.exists():
        try:
            values = paramiko.SSHConfig.from_path(str(path)).lookup(host.name)
        except (OSError, UnicodeDecodeError, paramiko.SSHException) as error:
            raise Failed(path, f"cannot be read: {error}", "correct it, or install openssh-client") from error
    for key in ("proxyjump", "proxycommand"):
        if values.get(key, "none") != "none":
            cause = f"{path} says {key} {values[key]}, which only ssh itself follows"
            raise Failed(f"ssh {host}", cause, "apt-get install openssh-client")
    return ParamikoSettings(
        address=values.get("hostname", host.name),
        port=host.port or int(values.get("port", 22)),
        user=host.user or values.get("user"),
        identities=[name for name in values.get("identityfile", ()) if Path(name).expanduser().is_file()],
        identities_only=values.get("identitiesonly", "no") == "yes",
        known_hosts=tuple(_known_hosts(values)),
    )


def _known_hosts(values: paramiko.SSHConfigDict) -> Iterator[Path]:
    user = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
    everyone = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
    for names in (values.get("userknownhostsfile", user), values.get("globalknownhostsfile", everyone)):
        for name in names.split():
            yield Path(name.strip('"')).expanduser()


@dataclass(slots=True)
class Paramiko:
    """A host reached by paramiko. `config` is read instead of ~/.ssh/config. Given the `fingerprint` of its
    host key, nothing else is asked whether it is the right host; otherwise known_hosts must have the key.
    """

    host: HostName
    config: Path | None = None
    fingerprint: str | None = None
    _client: paramiko.SSHClient | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, argv: Sequence[str]) -> "ParamikoChannel":
        line = quoted(argv)
        with self._lock:
            transport = self._connected()
        try:
            channel = transport.open_session(timeout=_CONNECT_SECONDS)
            channel.exec_command(line)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise unreachable(self.host, f"no session: {error}") from error
        return ParamikoChannel(channel)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def describe(self) -> str:
        return f"ssh {self.host} (paramiko)"

    def address(self) -> str | None:
        """The name or address that is connected to."""
        return configuration(self.host, self.config).address

    def _connected(self) -> paramiko.Transport:
        transport = self._client.get_transport() if self._client is not None else None
        if transport is None or not transport.is_active():
            if self._client is not None:
                self._client.close()
            self._client = self._connect(configuration(self.host, self.config))
            transport = self._client.get_transport()
        if transport is None:
            raise unreachable(self.host, "the connection broke at once")
        return transport

    def _connect(self, known: ParamikoSettings) -> paramiko.SSHClient:
        if self.fingerprint is None:
            return self._connect_once(known, ())
        # A server shows one key; the fingerprint may be that of another one that it has.
        for family in FAMILIES:
            with contextlib.suppress(HostKeyUnknown):
                return self._connect_once(known, family)
        raise not_the_fingerprint(self.host, self.fingerprint)

    def _connect_once(self, known: ParamikoSettings, key_types: tuple[str, ...]) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(_OnlyFingerprint(self.host, self.fingerprint))
        if self.fingerprint is None:
            for kind, key in _keys_of(known):
                client.get_host_keys().add(known.known_as, kind, key)
        try:
            stream = _stream(known)
            client.connect(
                known.address,
                known.port,
                known.user,
                sock=stream,
                # A list is taken too, as the library's own documentation says and its type stubs do not.
                key_filename=cast(str | None, known.identities or None),
                allow_agent=not known.identities_only,
                look_for_keys=not known.identities_only,
                banner_timeout=_CONNECT_SECONDS,
                auth_timeout=_CONNECT_SECONDS,
                channel_timeout=_CONNECT_SECONDS,
                transport_factory=_fast(key_types),
            )
        except (OSError, EOFError, paramiko.SSHException) as error:
            client.close()
            raise unreachable(self.host, str(error) or type(error).__name__) from error
        except BaseException:
            client.close()
            raise
        _watch(client, stream)
        return client


class _OnlyFingerprint(paramiko.MissingHostKeyPolicy):
    """Accepts the key of one fingerprint; without a fingerprint none."""

    def __init__(self, host: HostName, accepted: str | None) -> None:
        self._host = host
        self._accepted = accepted

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        shown = fingerprint(key.asbytes())
        if shown == self._accepted:
            return
        if self._accepted is not None:
            raise not_the_fingerprint(self._host, self._accepted)
        raise unreachable(self._host, f"no {key.get_name()} host key is known for it; it shows {shown}")


def _keys_of(known: ParamikoSettings) -> Iterator[tuple[str, paramiko.PKey]]:
    """The host's keys in known_hosts, without those that a line there revokes."""
    revoked: set[str] = set()
    keys = paramiko.HostKeys()
    for line in _lines(known.known_hosts):
        if line.startswith("@revoked"):
            revoked |= set(line.split()[2:])
        # The library takes a marker for a host's name; certificates of hosts it does not know at all.
        elif not line.startswith(("@", "#")):
            _add(keys, line)
    found = keys.lookup(known.known_as)
    return ((kind, key) for kind, key in (found or {}).items() if key.get_base64() not in revoked)


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        if path.is_file():
            yield from (line.strip() for line in path.read_text(errors="replace").splitlines())


def _add(keys: paramiko.HostKeys, line: str) -> None:
    # A line that is damaged vouches for nobody; ssh passes over it too.
    with contextlib.suppress(paramiko.hostkeys.InvalidHostKey, paramiko.SSHException):
        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
        if entry is not None and entry.key is not None:
            for name in entry.hostnames:
                keys.add(name, entry.key.get_name(), entry.key)


def _stream(known: ParamikoSettings) -> socket.socket:
    stream = socket.create_connection((known.address, known.port), _CONNECT_SECONDS)
    stream.settimeout(None)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_SILENCE_SECONDS * 1000))
    return stream


def _fast(key_types: tuple[str, ...]) -> Callable[..., paramiko.Transport]:
    """Makes the protocol's state with AES-GCM first and, when given, only these host keys asked for."""

    def make(stream: socket.socket, **options: Any) -> paramiko.Transport:
        transport = paramiko.Transport(stream, **options)
        security = transport.get_security_options()
        security.ciphers = sorted(security.ciphers, key=lambda cipher: "gcm" not in cipher)
        if key_types:
            security.key_types = [kind for kind in key_types if kind in security.key_types]
        return transport

    return make


def _watch(client: paramiko.SSHClient, stream: socket.socket) -> None:
    """End the connection when nothing came for 25 s although the host is asked for an answer every 9 s."""
    transport = client.get_transport()
    if transport is None:
        return

    def ask() -> None:
        while transport.is_active():
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                transport.global_request("keepalive@openssh.com", wait=True)
            time.sleep(_ASK_SECONDS)

    def listen() -> None:
        while transport.is_active():
            time.sleep(1.0)
            if _silence(stream) > _SILENCE_SECONDS:
                transport.close()

    for target in (ask, listen):
        threading.Thread(target=target, name="keepalive", daemon=True).start()


def _silence(stream: socket.socket) -> float:
    try:
        info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return 0.0
    (milliseconds,) = _TCP_INFO_LAST_DATA_RECEIVED.unpack_from(info)
    return float(milliseconds) / 1000


class ParamikoChannel:
    """A command's streams, moved by threads between paramiko's channel and pipes, because a paramiko channel
    has no descriptor that tells for which direction it is ready."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        stdin, near_stdin = os.pipe()
        near_stdout, stdout = os.pipe()
        self.stdin = FileIO(near_stdin, "wb")
        self.stdout = FileIO(near_stdout, "rb")
        self._tail = bytearray()
        self._stderr = _thread(self._keep_stderr)
        _thread(lambda: self._send(stdin))
        _thread(lambda: self._receive(stdout))

    def close(self) -> None:
        for end in (self.stdin, self.stdout, self._channel):
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                end.close()

    def wait(self, timeout: float | None) -> int:
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError(f"the command still runs after {timeout} s")
        status = self._channel.recv_exit_status()
        return status if status >= 0 else BROKEN

    def stderr_tail(self) -> str:
        # A command that has ended may have left words that the thread has not read yet.
        self._stderr.join(0.5 if self._channel.exit_status_ready() else 0.0)
        return bytes(self._tail).decode(errors="replace")

    def _send(self, pipe: int) -> None:
        with FileIO(pipe, "rb"), contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while piece := os.read(pipe, _PIECE):
                self._channel.sendall(piece)
            self._channel.shutdown_write()

    def _receive(self, pipe: int) -> None:
        with FileIO(pipe, "wb"), contextlib.suppress(OSError):
            while piece := self._channel.recv(_PIECE):
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(pipe, rest) :]

    def _keep_stderr(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._channel.recv_stderr(TAIL_BYTES):
                self._tail += piece
                del self._tail[:-TAIL_BYTES]


def _thread(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name="ssh channel", daemon=True)
    thread.start()
    return thread
