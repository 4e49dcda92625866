"""A real sshd on 127.0.0.1 with keys and a client configuration of its own."""

import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from blocksync.hosts.name import HostName
from patience import wait_for

ALIAS = "xenhost"
# For SetEnv: bash that sshd starts at this depth reads no .bashrc. What the user who runs the tests has there
# costs each command its time, and may end up half done when a test kills a login.
NO_BASHRC = "SHLVL=2"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """The processes below one, the nearest first."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = parents.get(pid, [])
    return found + [grandchild for child in found for grandchild in descendants(child)]


@dataclass(frozen=True)
class Server:
    """An sshd: `folder` holds its keys, `config` is the user's ssh_config, where it is called `xenhost`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def host(self) -> HostName:
        return HostName(None, ALIAS)

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    def fingerprint(self, kind: str = "ed25519") -> str:
        key = self.folder / f"host_{kind}.pub"
        return subprocess.run(
            ["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True
        ).stdout.split()[1]

    def connections(self) -> int:
        """How many connections it was asked for so far and let in."""
        return (self.folder / "log").read_text().count("Accepted publickey")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to every process it started."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            os.kill(pid, number)

    def end_connections(self) -> None:
        """Kill sshd's processes of every connection; the listener stays, and the commands are orphaned."""
        below = descendants(self.process.pid)
        for pid in [pid for pid in below if Path(f"/proc/{pid}/comm").read_text() == "sshd\n"]:
            os.kill(pid, signal.SIGKILL)

    def trust(self, *kinds: str) -> None:
        """Make known_hosts hold these keys of it."""
        lines = [f"[127.0.0.1]:{self.port} {(self.folder / f'host_{k}.pub').read_text()}" for k in kinds]
        (self.folder / "known_hosts").write_text("".join(lines))


def make_keys(folder: Path) -> Path:
    """Two host keys and a user's key."""
    for name in ("host_ed25519", "host_rsa", "user_ed25519"):
        argv = ["ssh-keygen", "-q", "-t", name.split("_")[1], "-N", "", "-f", folder / name]
        subprocess.run(argv, check=True, capture_output=True)
    return folder


def start(
    folder: Path, keys: Path, log_level: str = "VERBOSE", *, environment: str = "", more: str = ""
) -> Server:
    """Start an sshd that lives in an empty folder. `environment` is what its sessions have, as SetEnv wants
    it; `more` goes on its configuration.
    """
    port = free_port()
    shutil.copytree(keys, folder, dirs_exist_ok=True)
    (folder / "authorized_keys").write_text((folder / "user_ed25519.pub").read_text())
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\n"
        f"HostKey {folder}/host_ed25519\n"
        f"HostKey {folder}/host_rsa\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n"
        f"SetEnv {NO_BASHRC} {environment}\nLogLevel {log_level}\n{more}"
    )
    (folder / "ssh_config").write_text(
        f"Host {ALIAS}\n HostName 127.0.0.1\n Port {port}\n User root\n"
        f" IdentityFile {folder}/user_ed25519\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile /dev/null\n"
        " RequestTTY force\n RemoteCommand echo not-this\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    server = Server(folder, port, process)
    server.trust("ed25519", "rsa")
    wait_for(lambda: "Server listening" in (folder / "log").read_text())
    return server


def stop(server: Server) -> None:
    below = descendants(server.process.pid)
    server.process.terminate()
    server.process.wait(10)
    for pid in below:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
