"""/.autorelabel where SELinux is on, and the machine of a rehearsal that outlives the second boot."""

import pytest
from guest_files import FACTS, Files, after

from orchestrate.guest.fixups.fixup import ALL
from orchestrate.guest.fixups.selinux_relabel import NAME, PATH
from orchestrate.kvm.machine import MachineSpec, qemu_command

CONFIG = "/etc/selinux/config"


@pytest.mark.parametrize(
    ("config", "asks"),
    [
        ("SELINUX=enforcing\nSELINUXTYPE=targeted\n", True),
        ("# SELINUX=disabled\nSELINUX = permissive\n", True),
        ("SELINUX=enforcing\nSELINUX=disabled\n", False),
        ("SELINUX=disabled\n", False),
        ("SELINUXTYPE=targeted\n", False),
    ],
)
def test_a_guest_with_selinux_labels_its_files_anew(config, asks):
    guest = after(NAME, {CONFIG: config})
    assert (guest.read(PATH) is not None) == asks


def test_a_guest_without_selinux_or_that_is_to_be_labelled_already_is_left_alone():
    assert after(NAME, {}).read(PATH) is None
    files = Files({CONFIG: "SELINUX=enforcing\n", PATH: "-F\n"})
    assert next(each for each in ALL if each.name == NAME).edits(files, FACTS) == ()


def test_a_rehearsal_may_boot_again_when_everything_is_labelled(tmp_path, monkeypatch):
    (tmp_path / "qemu-system-x86_64").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "-no-reboot" in qemu_command(MachineSpec(disk=tmp_path / "disk"))
    assert "-no-reboot" not in qemu_command(MachineSpec(disk=tmp_path / "disk", may_reboot=True))


def test_it_comes_last():
    assert ALL[-1].name == NAME
