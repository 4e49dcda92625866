"""An sshd of the bench's own, with its own keys, and what makes `far` mean it for every program."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.passes.contenders import OURS

HOST = "far"
SSHD = "/usr/sbin/sshd"
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A host that is called `far`, for commands with `near` before them."""

    near: tuple[str, ...]


@contextmanager
def serving(
    folder: Path, address: str, *, near: tuple[str, ...] = (), far: tuple[str, ...] = ()
) -> Iterator[Server]:
    """An sshd at an address while the context lasts. `near` and `far` are what to write before commands that
    run at either end."""
    folder.mkdir()
    for name in ("host", "user"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(argv, check=True, capture_output=True)
    port = free_port()
    _configure(folder, address, port)
    # Where sshd locks up what it does without rights.
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        argv = [*far, SSHD, "-D", "-e", "-f", folder / "sshd_config"]
        process = subprocess.Popen(argv, stderr=log, start_new_session=True)
    try:
        _await(process, folder / "log")
        # Control sockets in our folder go with it, also those of a pass that is killed.
        environment = (
            f"HOME={folder}",
            f"XDG_RUNTIME_DIR={folder}",
            f"PATH={folder}/bin:{os.environ['PATH']}",
        )
        yield Server((*near, "env", *environment))
    finally:
        _end(process)


def _configure(folder: Path, address: str, port: int) -> None:
    path = f"{OURS.parent}:{os.environ['PATH']}"
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    (folder / "known_hosts").write_text(f"[{address}]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"ListenAddress {address}:{port}\n"
        f"HostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\n"
        # At this depth bash reads no .bashrc: what is in it would be measured with every program.
        f'SetEnv PATH="{path}" SHLVL=2\n'
        "StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n"
    )
    (folder / ".ssh").mkdir()
    config = folder / ".ssh" / "config"
    config.write_text(
        f"Host {HOST}\n HostName {address}\n Port {port}\n User root\n"
        f" IdentityFile {folder}/user\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile /dev/null\n"
    )
    # paramiko reads $HOME's; ssh only that of the user's entry in passwd, unless it is told.
    (folder / "bin").mkdir()
    ssh = folder / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    ssh.chmod(0o755)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _await(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _SECONDS
    while "Server listening" not in log.read_text():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"sshd does not start: {log.read_text().strip()}")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End sshd and what it started, which may be in the middle of something when a run is interrupted."""
    below = _descendants(process.pid)
    process.terminate()
    process.wait(_SECONDS)
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found = parents.get(pid, [])
    return found + [below for child in found for below in _descendants(child)]


def version() -> str:
    """What ssh says that it is."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    return said.partition(",")[0].removeprefix("OpenSSH_").strip()
