"""The other side of the lab's migrations: this machine, with a real libvirt and the guest's own bridge."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_places import GATEWAY, GUEST, GUEST_ADDRESS, tool
from xen_host import XenLab

BRIDGE = "xenbr0"
XEN2KVM = Path(sys.executable).parent / "xen2kvm"


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

    def step(self, command: str, *options: str) -> dict[str, Any]:
        """Run a command on the plan; its report."""
        output = self._succeed(command, str(self.plan), f"--job-dir={self.job}", "--json", *options)
        report: dict[str, Any] = json.loads(output)
        return report

    def _succeed(self, *argv: str) -> str:
        began = time.monotonic()
        done = subprocess.run(
            [str(XEN2KVM), *argv],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self._environment(),
        )
        assert done.returncode == 0, f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stderr}"
        steps = "".join(line + "\n" for line in done.stderr.splitlines() if ": copy " not in line)
        print(
            f"$ xen2kvm {shlex.join(argv)}  ({time.monotonic() - began:.0f} s)\n{steps}{done.stdout}",
            flush=True,
        )
        return done.stdout

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

    def clean(self) -> None:
        """Leave no domain behind."""
        for command in (["destroy"], ["undefine", "--nvram"]):
            subprocess.run(["virsh", "-q", "-c", self.uri, *command, GUEST], capture_output=True, check=False)


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
