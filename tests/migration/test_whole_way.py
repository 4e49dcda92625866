"""From a paravirtual Xen guest's bare volumes to a disk that a BIOS boots, with the commands users run."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_guest import volume_mounted
from xen_guest import MAC, MIB, PASSWORD, Recipe, XenGuest

from orchestrate.kvm.accel import choose
from orchestrate.kvm.machine import Machine, MachineSpec

pytestmark = [pytest.mark.boots, pytest.mark.timeout(1500)]

XEN2KVM = Path(sys.executable).parent / "xen2kvm"
CHANGED_ROOT, CHANGED_SRV = 3 * MIB, 2 * MIB


class Migration:
    """The commands, on one guest."""

    def __init__(self, guest: XenGuest, folder: Path) -> None:
        self.guest, self.folder = guest, folder
        self.target, self.plan = folder / "web1.raw", folder / "web1.toml"

    def xen2kvm(self, command: str, *options: str) -> Any:
        argv = [str(XEN2KVM), command, str(self.plan), f"--job-dir={self.folder}/job", "--json", *options]
        return json.loads(self._run(argv))

    def make_plan(self, *options: str) -> Any:
        argv = [str(XEN2KVM), "plan", str(self.guest.config), f"--disk={self.target}", f"-o{self.plan}"]
        return json.loads(self._run([*argv, "--json", *self.guest.volume_options, *options]))

    def _run(self, argv: list[str]) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write_in_the_guest(self) -> None:
        """Change files in two file systems, and note the checksums of what is in them."""
        volumes, at = self.guest.volumes, self.folder / "mounted"
        with volume_mounted(volumes["/dev/vg0/web1-srv"], at) as srv:
            (srv / "late").write_bytes(b"s" * CHANGED_SRV)
            served = {f"/srv/{path.name}": digest(path) for path in srv.iterdir() if path.is_file()}
        with volume_mounted(volumes["/dev/vg0/web1-root"], at) as root:
            (root / "root/late").write_bytes(b"r" * CHANGED_ROOT)
            programs = [path for path in (root / "usr/bin").iterdir() if path.is_file()]
            kept = {f"/usr/bin/{path.name}": digest(path) for path in programs if not path.is_symlink()}
            kept["/root/late"] = digest(root / "root/late")
            lines = [f"{value}  {path}\n" for path, value in {**kept, **served}.items()]
            (root / "root/manifest").write_text("".join(lines))


def digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


WAYS = {
    "systemd on an MBR": (Recipe(), ()),
    "sysvinit on a DOS-compatible MBR, data on xfs": (
        Recipe(init="sysvinit-core", srv_filesystem="xfs", srv_mib=320),
        ("--first-sector=63",),
    ),
    "bullseye with the stock kernel on a GPT, data on btrfs": (
        Recipe(
            suite="bullseye",
            kernel="linux-image-amd64",
            srv_filesystem="btrfs",
            srv_mib=128,
            root_mib=1600,
        ),
        ("--table=gpt",),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_xen_guest_boots_from_one_disk_with_its_files_its_network_name_and_its_swap(
    way: str, make_guest: Callable[[Recipe], XenGuest], tmp_path: Path
) -> None:
    recipe, options = WAYS[way]
    migration = Migration(make_guest(recipe), tmp_path)
    migration.make_plan(*options)
    first = migration.xen2kvm("sync")
    assert first["table_written"]
    assert first["swap_made"] == ["xvda1"]

    migration.write_in_the_guest()
    second = migration.xen2kvm("sync")
    changed = CHANGED_ROOT + CHANGED_SRV
    assert changed <= second["bytes_written"] <= 2 * changed + 2 * MIB
    assert not second["swap_made"]

    copied = digest(migration.target)
    rehearsal = migration.xen2kvm("rehearse", "--timeout=600")
    assert Path(rehearsal["console"]).stat().st_size > 1000
    assert digest(migration.target) == copied

    unchanged = migration.xen2kvm("cutover")
    assert unchanged["last_pass"]["bytes_written"] == 0
    subprocess.run(["virt-xml-validate", unchanged["xml"], "domain"], check=True)
    _refused_after_the_cutover(migration)
    _boots_by_itself(migration, recipe)


def _refused_after_the_cutover(migration: Migration) -> None:
    argv = [str(XEN2KVM), "sync", str(migration.plan), f"--job-dir={migration.folder}/job"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "is the disk of a KVM guest" in done.stderr
    assert "--again" not in done.stderr


def _boots_by_itself(migration: Migration, recipe: Recipe) -> None:
    """The BIOS and the disk, no -kernel: log in on ttyS0 and look at everything that moved."""
    spec = MachineSpec(disk=migration.target, memory_mib=512, accelerator=choose(), macs=(MAC,))
    with Machine(spec, migration.folder / "final.log") as machine:
        machine.wait_for("login:", 600)
        machine.send_line("root")
        machine.wait_for("Password:", 60)
        machine.send_line(PASSWORD)
        machine.wait_for(r"# $", 180)
        machine.send_line("sha256sum --quiet -c /root/manifest && echo intact''-files")
        machine.wait_for("intact-files", 300)
        machine.send_line(f"ip -br link show dev {recipe.nic}; cat /proc/swaps")
        machine.wait_for(MAC, 60)
        machine.wait_for("partition", 60)
        machine.send_line("poweroff")
        machine.wait_for_end(180)
