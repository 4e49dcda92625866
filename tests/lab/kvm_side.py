"""The other side of the lab's migrations: this machine, with a real libvirt and the guest's own bridge."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from in_dom0 import GUEST_VOLUMES, volume_names
from lab_places import GATEWAY, GUEST, GUEST_ADDRESS, tool
from witness import LOG, RECORDS, Account, account, acknowledged
from xen_host import XenLab

BRIDGE = "xenbr0"
XEN2KVM = Path(sys.executable).parent / "xen2kvm"
# An emulated guest takes its time, and its witness writes more than emulated passes carry.
PATIENCE = (
    *("--boot-timeout", "900", "--shutdown-timeout", "600"),
    *("--override", "not-rehearsed", "--override", "not-converging"),
)
# The witness is a service of the guest on both sides: a moment of rest shows what it has.
TAKE_OUT = f"systemctl stop witness; tar -C / -c {LOG} srv/{RECORDS}; systemctl start witness"
_STRUCK = Path(__file__).parent / "struck.py"
# Errors that the same command goes on after: a failure, or an interruption.
_GOES_ON = {1, 5}


@contextmanager
def bridge() -> Iterator[None]:
    """The bridge of the guest's Xen configuration; this machine is the guest's gateway on it."""
    tool("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        tool("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        tool("ip", "link", "set", BRIDGE, "up")
        yield
    finally:
        tool("ip", "link", "del", BRIDGE)


@dataclass(frozen=True, slots=True)
class KvmSide:
    """A KVM host that moves the lab's guest: `folder` has the target, the plan and the job."""

    lab: XenLab
    folder: Path
    uri: str

    @property
    def plan(self) -> Path:
        return self.folder / f"{GUEST}.toml"

    @property
    def target(self) -> Path:
        return self.folder / f"{GUEST}.raw"

    @property
    def job(self) -> Path:
        return self.folder / "job"

    def make_plan(self) -> None:
        """Plan the guest's move from its configuration on the Xen host."""
        url = f"ssh://dom0/etc/xen/{GUEST}.cfg"
        self._succeed("plan", url, f"--disk={self.target}", f"-o{self.plan}")

    def prepare(self) -> list[dict[str, str]]:
        """Make the guest ready for KVM, by ssh into it while it runs on Xen; what was said of each thing."""
        lines: list[dict[str, str]] = json.loads(self._succeed("prepare", GUEST, "--json"))["lines"]
        return lines

    def step(self, command: str, *options: str) -> dict[str, Any]:
        """Run a command on the plan; its report."""
        report: dict[str, Any] = json.loads(self._succeed(command, *self._on_the_plan(options)))
        return report

    def killed(self, at: str, command: str, *options: str, after: float = 0.0) -> None:
        """Run a command on the plan that gets a SIGKILL, `after` seconds into a step."""
        how = [sys.executable, str(_STRUCK), at, str(after), ""]
        done = self._run(how, command, *self._on_the_plan(options))
        assert done.returncode == -signal.SIGKILL, done.stderr

    def cut_off(self, at: str, command: str, *options: str) -> None:
        """Run a command on the plan whose Xen host's cable is pulled as a step begins: it says what to do.
        The cable is in again at the end.
        """
        how = [sys.executable, str(_STRUCK), at, "0", str(self.lab.monitor_path)]
        try:
            done = self._run(how, command, *self._on_the_plan(options))
        finally:
            self.lab.plug_in()
        assert done.returncode in _GOES_ON, f"ended with {done.returncode}:\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "dom0" in done.stderr
        assert "hint:" in done.stderr

    def _on_the_plan(self, options: tuple[str, ...]) -> tuple[str, ...]:
        return str(self.plan), f"--job-dir={self.job}", "--json", *options

    def _succeed(self, *argv: str) -> str:
        done = self._run([str(XEN2KVM)], *argv)
        assert done.returncode == 0, f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    def _run(self, how: list[str], *argv: str) -> subprocess.CompletedProcess[str]:
        """Run xen2kvm, started as `how` says; what it does is shown."""
        began = time.monotonic()
        done = subprocess.run(
            [*how, *argv],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self._environment(),
        )
        steps = "".join(line + "\n" for line in done.stderr.splitlines() if ": copy " not in line)
        struck = f", struck: {shlex.join(how[2:4])}" if len(how) > 1 else ""
        ended = f"{time.monotonic() - began:.0f} s, {done.returncode}{struck}"
        print(f"$ xen2kvm {shlex.join(argv)}  ({ended})\n{steps}{done.stdout}", flush=True)
        return done

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "XEN2KVM_SSH_CONFIG": str(self.lab.ssh_config),
            "XEN2KVM_ACCEL": "tcg",
            "LIBVIRT_DEFAULT_URI": self.uri,
        }

    def state(self) -> str:
        """What libvirt says of the guest; empty when it has none of that name."""
        command = ["virsh", "-q", "-c", self.uri, "domstate", GUEST]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def whereabouts(self) -> set[str]:
        """The sides that have the guest."""
        there = {"xen"} if self.lab.guest_runs() else set()
        return there | ({"kvm"} if self.state() not in {"", "shut off"} else set())

    def inside(self, script: str, *, seconds: float = 300) -> bytes:
        """Run a shell script in the guest on this side, logged in over its own address."""
        place = ("-o", f"HostName={GUEST_ADDRESS}", "-o", "Port=22", "-o", "ControlPath=none")
        remote = shlex.join(["sh", "-ec", script])
        command = ["ssh", "-F", str(self.lab.ssh_config), *place, GUEST, "--", remote]
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def power_off(self, seconds: float = 300) -> None:
        """Shut the guest down from inside, and wait for its end."""
        with suppress(AssertionError):
            # The connection may end before the command does.
            self.inside("systemctl poweroff")
        deadline = time.monotonic() + seconds
        while self.state() != "shut off":
            assert time.monotonic() < deadline, f"{GUEST} is {self.state()} after {seconds:g} s"
            time.sleep(1)

    def assert_moved(self, folder: Path) -> dict[int, str]:
        """The guest is on KVM alone, with every record that was acknowledged on Xen, and no snapshot is left.
        What its witness holds durable by now.
        """
        assert self.whereabouts() == {"kvm"}
        assert volume_names(self.lab) == GUEST_VOLUMES
        before = acknowledged(self.lab.guest_console())
        _assert_whole(_taken_out(self.inside(TAKE_OUT), folder, before), before)
        time.sleep(10)
        lines = self.inside(f"sync; cat /{LOG}").decode().splitlines()
        return before | {int(number): digest for number, digest in (line.split() for line in lines)}

    def assert_back(self, folder: Path, durable: dict[int, str]) -> None:
        """The guest is on Xen alone, with every record that was `durable` on KVM, and no snapshot is left."""
        assert self.whereabouts() == {"xen"}
        self.lab.wait_for(GUEST)
        archive = self.lab.ssh(["sh", "-ec", TAKE_OUT], host=GUEST).stdout
        _assert_whole(_taken_out(archive, folder, durable), durable)
        assert volume_names(self.lab) == GUEST_VOLUMES

    def clean(self) -> None:
        """Leave no domain behind."""
        for command in (["destroy"], ["undefine", "--nvram"]):
            subprocess.run(["virsh", "-q", "-c", self.uri, *command, GUEST], capture_output=True, check=False)


def _taken_out(archive: bytes, folder: Path, expected: dict[int, str]) -> Account:
    """The account of what `TAKE_OUT` printed."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return account(folder, folder / "srv", expected)


def _assert_whole(found: Account, expected: dict[int, str]) -> None:
    assert found.wrong == ()
    assert found.last > max(expected), "the witness writes on"


@contextmanager
def kvm_side(lab: XenLab, uri: str) -> Iterator[KvmSide]:
    """A KVM host with nothing on it yet, in a folder that libvirt's QEMU may reach."""
    with (
        tempfile.TemporaryDirectory(prefix="xen2kvm-lab-", dir="/var/lib/libvirt/images") as folder,
        bridge(),
    ):
        Path(folder).chmod(0o755)
        side = KvmSide(lab, Path(folder), uri)
        try:
            yield side
        finally:
            side.clean()
