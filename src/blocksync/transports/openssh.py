"""The user's own `ssh`: its configuration, agent, jump hosts and known_hosts decide who is trusted and how.

One control connection a host (ssh_config(5), ControlMaster) carries every command; its socket is in a folder
that only this user can enter.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from blocksync.hosts import programs
from blocksync.hosts.name import HostName
from blocksync.transports import control_socket
from blocksync.transports.child import ChildChannel, Tail, ended
from blocksync.transports.command_line import quoted
from blocksync.transports.failures import HostKeyUnknown, not_the_fingerprint, unreachable
from blocksync.transports.host_keys import FAMILIES

# AES-GCM passed 0.64 GB/s through OpenSSH where chacha20, its first choice, passed 0.37.
FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
CONNECT_SECONDS = 15
# A link that is dead is given up after three of these, 27 s; 30 s are promised.
_ALIVE_SECONDS = 9
# How long the control connection outlives its last command when nobody closes it: this process was killed.
_PERSIST_SECONDS = 60
# Without a terminal nobody answers questions; what takes longer hangs.
_UNATTENDED_SECONDS = 60.0
# sun_path has 108 bytes, the last one NUL. mkdtemp adds 8 to the prefix, and ssh binds to the name with 17
# more first.
_FOLDER_PREFIX = "blocksync-ssh-"
# A folder that nobody holds is one of a process that was killed, if it is not just being made.
_SETTLED_SECONDS = 10.0
# Waits for the end of this process, however it comes; then nothing of the connection is left.
_WATCHER = 'read -r _; "$0" -F /dev/null -S "$1/control" -O exit -- host; rm -rf -- "$1"'
_LONGEST_FOLDER = 107 - len(f"/{_FOLDER_PREFIX}XXXXXXXX/control.XXXXXXXXXXXXXXXX")


@dataclass(frozen=True, slots=True)
class OpenSshSettings:
    """What ssh_config(5) comes to for a host, as `ssh -G` prints it: lower-case keywords."""

    values: dict[str, str]

    def ciphers(self) -> str:
        """The ciphers it allows, AES-GCM first. None is added: a policy may have taken them out."""
        allowed = self.values.get("ciphers", "").split(",")
        first = [cipher for cipher in FAST_CIPHERS if cipher in allowed]
        return ",".join(first + [cipher for cipher in allowed if cipher not in first])

    def host_key_families(self) -> list[str]:
        """The kinds of host keys it accepts, each as the algorithms of one key."""
        accepted = self.values.get("hostkeyalgorithms", "").split(",")
        families = (",".join(a for a in family if a in accepted) for family in FAMILIES)
        return [family for family in families if family]

    def address(self) -> str | None:
        """The name or address that ssh connects to; None when it goes through a proxy or a jump host."""
        proxied = any(self.values.get(key, "none") != "none" for key in ("proxyjump", "proxycommand"))
        return None if proxied else self.values.get("hostname")


@dataclass(slots=True)
class OpenSSH:
    """A host reached by `ssh`. `config` is a file to read instead of the user's own (`ssh -F`). Given the
    `fingerprint` of its host key, nothing else is asked whether it is the right host.

    Connects at the first `run`. Asks questions only when there is a terminal to ask on.
    """

    host: HostName
    config: Path | None = None
    fingerprint: str | None = None
    _folder: "_Folder | None" = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, argv: Sequence[str]) -> ChildChannel:
        line = quoted(argv)
        with self._lock:
            socket = self._connected()
        # Nothing of the user's configuration concerns a command on the control connection, and should that be
        # gone, `false` keeps ssh from making another connection unasked.
        alone = ["-o", "BatchMode=yes", "-o", "ProxyCommand=false", "-T", "-a", "-x"]
        return ChildChannel([*_client(socket), *alone, "--", self.host.name, line])

    def close(self) -> None:
        with self._lock:
            if self._folder is not None:
                control_socket.end(self._folder.socket)
            self._leave()

    def describe(self) -> str:
        return f"ssh {self.host}"

    def address(self) -> str | None:
        """The name or address that ssh connects to; None when it goes through a proxy or a jump host."""
        return self.configuration().address()

    def configuration(self) -> OpenSshSettings:
        """What the user's configuration says of this host. Raises Failed when ssh cannot read it."""
        done = subprocess.run(
            [*self._own(), "-G", "--", self.host.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise unreachable(self.host, done.stderr)
        pairs = (line.partition(" ") for line in done.stdout.splitlines())
        return OpenSshSettings({key: value for key, _, value in pairs})

    def _own(self) -> list[str]:
        """ssh with what the user and the command line say, up to the options of one call."""
        argv = [ssh_binary()]
        if self.config is not None:
            argv += ["-F", str(self.config)]
        if self.host.user is not None:
            argv += ["-l", self.host.user]
        if self.host.port is not None:
            argv += ["-p", str(self.host.port)]
        return argv

    def _connected(self) -> Path:
        """The socket of a control connection that answers, after making it if there is none."""
        if self._folder is None:
            self._folder = _Folder()
        socket = self._folder.socket
        if not control_socket.is_alive(socket):
            # Left behind by a connection that was killed.
            socket.unlink(missing_ok=True)
            try:
                self._connect(socket)
            except BaseException:
                self._leave()
                raise
        return socket

    def _leave(self) -> None:
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _connect(self, socket: Path) -> None:
        configuration = self.configuration()
        if self.fingerprint is None:
            self._connect_once(socket, configuration, {})
            return
        # A server shows one key; the fingerprint may be that of another one that it has.
        trust = _only(self.fingerprint)
        for algorithms in configuration.host_key_families():
            with contextlib.suppress(HostKeyUnknown):
                self._connect_once(socket, configuration, trust | {"HostKeyAlgorithms": algorithms})
                return
        raise not_the_fingerprint(self.host, self.fingerprint)

    def _connect_once(self, socket: Path, configuration: OpenSshSettings, trust: dict[str, str]) -> None:
        attended = _has_terminal()
        options = trust | _connection(socket, configuration, attended=attended)
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        process = subprocess.Popen(
            [*self._own(), *words, "-N", "-T", "-a", "-x", "--", self.host.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        tail = Tail(cast(IO[bytes], process.stderr))
        try:
            # Once it is let in it goes to the background, out of reach of the terminal's Ctrl-C.
            status = process.wait() if attended else ended(process, _UNATTENDED_SECONDS)
        except subprocess.TimeoutExpired:
            raise unreachable(self.host, f"{tail.text()}\nConnection timed out") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if status != 0:
            raise unreachable(self.host, tail.text(1.0))


_TRUST = {
    "StrictHostKeyChecking": "yes",
    "VerifyHostKeyDNS": "no",
    "NoHostAuthenticationForLocalhost": "no",
    "UpdateHostKeys": "no",
}


class _Folder:
    """A folder for a control socket that only this user can enter. It goes with this process, killed or not,
    and so does the connection.
    """

    def __init__(self) -> None:
        self._path = _private_folder()
        self.socket = self._path / "control"
        # Held as long as this process lives: see `_sweep`.
        self._held = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self._watcher = subprocess.Popen(
            ["sh", "-c", _WATCHER, ssh_binary(), str(self._path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def remove(self) -> None:
        """Remove it. Does not end the connection."""
        self._watcher.kill()
        self._watcher.communicate()
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._held)


def ssh_binary() -> str:
    """The path of `ssh`. Raises Failed when there is none."""
    return programs.find("ssh")


def _connection(socket: Path, configuration: OpenSshSettings, *, attended: bool) -> dict[str, str]:
    options = {
        "ControlMaster": "yes",
        "ControlPath": str(socket),
        "ControlPersist": str(_PERSIST_SECONDS),
        "Ciphers": configuration.ciphers(),
        # The wire compresses what shrinks; zlib in ssh would slow down the rest.
        "Compression": "no",
        "ServerAliveInterval": str(_ALIVE_SECONDS),
        "ServerAliveCountMax": "2",
        "BatchMode": "no" if attended else "yes",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        # Whatever the user's configuration allows: a host is known, or it is not talked to.
        **_TRUST,
        "LogLevel": "INFO",
    }
    if configuration.values.get("connecttimeout", "none") == "none":
        options["ConnectTimeout"] = str(CONNECT_SECONDS)
    if "remotecommand" in configuration.values:
        options["RemoteCommand"] = "none"
    return options


def _only(fingerprint: str) -> dict[str, str]:
    """Options (OpenSSH 8.5 and later) that trust the key of this fingerprint and no other."""
    script = 'if [ "$0" = "$1" ]; then echo "$2 $3 $4"; fi'
    return {
        "KnownHostsCommand": f"/bin/sh -c '{script}' %f {fingerprint} %H %t %K",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        **_TRUST,
    }


def _client(socket: Path) -> list[str]:
    return [ssh_binary(), "-F", "/dev/null", "-o", "ControlMaster=no", "-S", str(socket)]


def _private_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = [runtime, tempfile.gettempdir()] if runtime else [tempfile.gettempdir()]
    fitting = (
        p for p in places if len(os.fsencode(p)) <= _LONGEST_FOLDER and os.access(p, os.W_OK | os.X_OK)
    )
    place = next(fitting, "/tmp")
    _sweep(Path(place))
    return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=place))


def _sweep(place: Path) -> None:
    """Remove the folders of processes that were killed together with their watchers."""
    for folder in place.glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                status = os.fstat(held)
                if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _SETTLED_SECONDS:
                    continue
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                control_socket.end(folder / "control")
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
