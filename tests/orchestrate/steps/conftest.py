"""A small guest on real file systems: enough for every step but a boot."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xl_double
from xl_double import GUEST, XlDouble

MIB = 2**20
XEN2KVM = Path(sys.executable).parent / "xen2kvm"
FILES = {
    "etc/debian_version": "12.1\n",
    "etc/fstab": "/dev/xvda1 none swap sw 0 0\n/dev/xvda2 / ext4 defaults 0 1\n/dev/xvda3 /srv ext4 ro 0 2\n",
    "etc/securetty": "tty1\nhvc0\n",
    "boot/vmlinuz-6.1.0-9-amd64": "kernel\n",
    "boot/initrd.img-6.1.0-9-amd64": "initramfs\n",
}


@dataclass
class SmallGuest:
    """Its folder, and the commands run on it. `volumes` are by the name that the guest knows."""

    folder: Path
    volumes: dict[str, Path]

    @property
    def target(self) -> Path:
        return self.folder / "target.raw"

    @property
    def plan(self) -> Path:
        return self.folder / "guest.toml"

    @property
    def config(self) -> Path:
        return self.folder / "guest.cfg"

    def xen2kvm(self, *argv: object) -> subprocess.CompletedProcess[str]:
        command = [str(XEN2KVM), *(str(argument) for argument in argv)]
        environment = {**os.environ, "XEN2KVM_ACCEL": "tcg"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def make_plan(self, *options: object) -> subprocess.CompletedProcess[str]:
        mapped = [f"--volume=/dev/vg0/{name}={path}" for name, path in self.volumes.items()]
        return self.xen2kvm("plan", self.config, f"--disk={self.target}", f"-o{self.plan}", *mapped, *options)

    def step(self, name: str, *options: object) -> subprocess.CompletedProcess[str]:
        if name == "cutover":
            # It has no kernel that a rehearsal could boot.
            options = ("--override=not-rehearsed", *options)
        return self.xen2kvm(name, self.plan, f"--job-dir={self.folder / 'job'}", *options)

    def result(self, name: str, *options: object) -> Any:
        done = self.step(name, "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def write_config(self, **settings: str) -> None:
        disks = ", ".join(f"'phy:/dev/vg0/{name},{name},w'" for name in self.volumes)
        lines = {
            "name": f"'{GUEST}'",
            "memory": "64",
            "root": "'/dev/xvda2 ro'",
            "disk": f"[{disks}]",
            **settings,
        }
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))


def make_ext4(image: Path, files: dict[str, str], mib: int = 32) -> None:
    tree = image.with_suffix(".tree")
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    tree.mkdir(exist_ok=True)
    sized(image, mib)
    subprocess.run(["mkfs.ext4", "-q", "-d", str(tree), str(image)], check=True)


def sized(path: Path, mib: int) -> Path:
    with path.open("wb") as opened:
        opened.truncate(mib * MIB)
    return path


@pytest.fixture
def small_guest(tmp_path: Path) -> SmallGuest:
    volumes = {name: tmp_path / f"{name}.img" for name in ("xvda2", "xvda1", "xvda3")}
    make_ext4(volumes["xvda2"], {**FILES, "srv/.keep": ""})
    subprocess.run(["mkswap", "-q", "-L", "swap", str(sized(volumes["xvda1"], 8))], check=True)
    make_ext4(volumes["xvda3"], {"data": "served\n"})
    guest = SmallGuest(tmp_path, volumes)
    guest.write_config()
    return guest


@pytest.fixture
def planned_guest(small_guest: SmallGuest) -> SmallGuest:
    done = small_guest.make_plan()
    assert done.returncode == 0, done.stderr
    return small_guest


@pytest.fixture
def xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> XlDouble:
    """A toolstack with the guest running, and no libvirt: the KVM side is the operator's."""
    double = xl_double.make(tmp_path / "toolstack")
    monkeypatch.setenv("PATH", double.environment()["PATH"])
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", f"qemu+unix:///system?socket={tmp_path}/none")
    return double


@pytest.fixture
def reachable_folder() -> Iterator[Path]:
    """A folder that libvirt's QEMU may reach (pytest's is root's alone)."""
    with tempfile.TemporaryDirectory(prefix="x2k-take-over-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def virsh(libvirt_uri: str) -> Iterator[list[str]]:
    """virsh up to its command; the small guest's domain is gone afterwards, and was not somebody's before."""
    command = ["virsh", "-q", "-c", libvirt_uri]
    there = subprocess.run([*command, "domuuid", GUEST], capture_output=True, check=False)
    assert there.returncode != 0, f"{libvirt_uri} has a domain {GUEST} of its own"
    yield command
    for ending in ("destroy", "undefine"):
        subprocess.run([*command, ending, GUEST], capture_output=True, check=False)
