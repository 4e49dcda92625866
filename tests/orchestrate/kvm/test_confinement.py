"""A real QEMU, looked at in /proc: who it is, and what it may do. Emulators that know less are stand-ins."""

import os
import shutil
from pathlib import Path

import pytest
from boot_sectors import printing

from orchestrate.kvm import confinement as module
from orchestrate.kvm.confinement import confinement
from orchestrate.kvm.machine import Machine, MachineSpec

needs_qemu = pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user has no rights to give up")
KNOWS = """#!/bin/sh
for word; do case $word in %s) echo "$word: invalid option" >&2; exit 1;; esac; done
"""


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An emulator that ends with an error when it is given an option that it does not know."""
    fake = tmp_path / "qemu-system-x86_64"
    monkeypatch.setattr(module, "emulator", lambda: str(fake))
    confinement.cache_clear()

    def knows_not(*options: str) -> None:
        fake.write_text(KNOWS % ("|".join(options) or "-none"))
        fake.chmod(0o755)

    yield knows_not
    confinement.cache_clear()


@needs_qemu
@needs_root
@pytest.mark.boots
def test_a_rehearsal_s_qemu_is_nobody_and_cannot_start_programs(tmp_path: Path) -> None:
    confinement.cache_clear()
    disk = tmp_path / "disk"
    disk.write_bytes(printing("old login:").ljust(1 << 20, b"\0"))
    disk.chmod(0o600)
    macs = ("00:16:3e:00:00:01",)
    with Machine(MachineSpec(disk, memory_mib=64, accelerator="tcg", macs=macs), tmp_path / "log") as machine:
        machine.wait_for("login:", 20)
        assert machine._console is not None
        told = Path("/proc", str(machine._console.pid), "status").read_text()
    status = {name: words.split() for name, _, words in (line.partition(":") for line in told.splitlines())}
    assert status["Uid"] == ["65534"] * 4
    assert status["Gid"] == ["65534"] * 4
    assert status["Groups"] == ["65534"]
    assert status["CapEff"] == ["0000000000000000"]
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]


@needs_qemu
def test_this_host_s_emulator_can_do_all_of_it() -> None:
    confinement.cache_clear()
    assert confinement("tcg").lacks == ""


@needs_root
@pytest.mark.parametrize(
    ("unknown", "arguments", "lacks"),
    [
        ((), ("-run-with", "-sandbox"), ""),
        (("-run-with",), ("-runas", "-sandbox"), ""),
        (("-sandbox",), ("-run-with",), "without a sandbox"),
        (("-run-with", "-sandbox"), ("-runas",), "without a sandbox"),
        (("-run-with", "-runas"), ("-sandbox",), "as root"),
        (("-run-with", "-runas", "-sandbox"), (), "no sandbox"),
    ],
)
def test_an_older_emulator_is_confined_as_far_as_it_can_be(emulator, unknown, arguments, lacks) -> None:
    emulator(*unknown)
    found = confinement("tcg")
    assert tuple(word for word in found.arguments if word.startswith("-")) == arguments
    assert lacks in found.lacks
    assert bool(found.lacks) == bool(lacks)


@needs_root
def test_qemu_that_stays_root_may_not_become_anybody(emulator) -> None:
    emulator("-run-with", "-runas")
    assert confinement("tcg").arguments[1].endswith(",elevateprivileges=deny")
