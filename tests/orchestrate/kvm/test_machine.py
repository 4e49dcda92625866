"""Real QEMU, real BIOS; the guests are boot sectors that speak on COM1."""

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from boot_sectors import printing

from blocksync.errors import Failed, Refused, Usage
from orchestrate.kvm.bridge import require_isolated
from orchestrate.kvm.machine import FATAL, Machine, MachineSpec

pytestmark = [
    pytest.mark.boots,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86"),
]

DISK_BYTES = 1 << 20
LOGIN = "Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login: "
GRUB_IMAGES = Path("/usr/lib/grub/i386-pc")


def disk_with(sector: bytes, folder: Path) -> MachineSpec:
    disk = folder / "a disk, with a comma"
    disk.write_bytes(sector.ljust(DISK_BYTES, b"\0"))
    return MachineSpec(disk, memory_mib=64, accelerator="tcg")


@contextmanager
def booted(spec: MachineSpec, folder: Path) -> Iterator[Machine]:
    with Machine(spec, folder / "console.log") as machine:
        yield machine


def emulators_on(disk: Path) -> list[str]:
    """Processes that have the disk on their command line (commas doubled, as QEMU wants them)."""
    wanted = str(disk).replace(",", ",,").encode()
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in cmdline.read_bytes():
                found.append(cmdline.parent.name)
        except OSError:
            continue
    return found


def test_a_login_prompt_is_seen_and_typed_lines_reach_the_guest(tmp_path: Path) -> None:
    spec = disk_with(printing(LOGIN), tmp_path)
    with booted(spec, tmp_path) as machine:
        prompt = machine.wait_for(r"\w+ login:", 20)
        machine.send_line("root")
        echoed = machine.wait_for("root\r", 5)
    assert prompt.text == "web login:"
    assert 0 < prompt.seconds < echoed.seconds < 25


def test_the_log_holds_the_raw_bytes_of_the_console(tmp_path: Path) -> None:
    with booted(disk_with(printing(LOGIN), tmp_path), tmp_path) as machine:
        machine.wait_for("login:", 20)
        assert b"Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login:" in machine.log.read_bytes()
        machine.send_line("late")
        time.sleep(0.5)  # nobody reads meanwhile
    assert b"web login: late\r" in machine.log.read_bytes()


@pytest.mark.parametrize("bus", ["virtio", "ide", "sata"])
@pytest.mark.parametrize("model", ["virtio", "e1000"])
def test_each_disk_bus_and_nic_boots(bus: str, model: str, tmp_path: Path) -> None:
    plain = disk_with(printing(LOGIN), tmp_path)
    macs = ("00:16:3e:00:00:01", "00:16:3e:00:00:02")
    spec = replace(plain, disk_bus=bus, nic_model=model, macs=macs, vcpus=2)
    with booted(spec, tmp_path) as machine:
        assert machine.wait_for("login:", 20).text == "login:"


def test_on_a_bridge_each_card_has_a_cable_that_goes_with_the_machine(tmp_path: Path) -> None:
    spec = replace(disk_with(printing(LOGIN), tmp_path), macs=("00:16:3e:00:00:01", "00:16:3e:00:00:02"))
    ports = Path("/sys/class/net/x2ktest0/brif")
    with bridge("x2ktest0"):
        with booted(replace(spec, bridge="x2ktest0"), tmp_path) as machine:
            assert len(list(ports.iterdir())) == 2
            require_isolated("x2ktest0")
            machine.wait_for("login:", 20)
        deadline = time.monotonic() + 5
        while list(ports.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(ports.iterdir()) == []


def test_a_machine_whose_bridge_is_gone_does_not_stay(tmp_path: Path) -> None:
    spec = replace(disk_with(printing(LOGIN), tmp_path), macs=("00:16:3e:00:00:01",), bridge="x2knone")
    with pytest.raises(Failed, match="network card"), booted(spec, tmp_path):
        pass
    assert emulators_on(spec.disk) == []


def test_a_bridge_that_leads_anywhere_is_refused_and_a_missing_one_is_named() -> None:
    with bridge("x2ktest0"):
        require_isolated("x2ktest0")
        ip("link", "add", "x2kport0", "type", "veth", "peer", "name", "x2kport1")
        try:
            ip("link", "set", "x2kport0", "master", "x2ktest0")
            with pytest.raises(Refused, match="has the port x2kport0"):
                require_isolated("x2ktest0")
        finally:
            ip("link", "del", "x2kport0")
    for name in ("x2ktest0", "lo", "../net/lo", "", "a name"):
        with pytest.raises(Usage, match="is not on this host"):
            require_isolated(name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def bridge(name: str) -> Iterator[None]:
    ip("link", "add", name, "type", "bridge")
    try:
        ip("link", "set", name, "up")
        yield
    finally:
        ip("link", "del", name)


def test_a_pattern_that_does_not_come_is_reported_with_the_console(tmp_path: Path) -> None:
    spec = disk_with(printing(LOGIN), tmp_path)
    with booted(spec, tmp_path) as machine, pytest.raises(Failed) as failure:
        machine.wait_for("Welcome", 2)
    message = str(failure.value)
    assert "'Welcome'" in message
    assert "within 2 s" in message
    assert "web login:" in message
    assert str(machine.log) in message
    assert emulators_on(spec.disk) == []


@pytest.mark.parametrize(
    ("console", "meaning"),
    [
        ("error: unknown filesystem.\r\nEntering rescue mode...\r\ngrub rescue> ", "GRUB did not find"),
        ("   Minimal BASH-like line editing is supported.\r\ngrub> ", "no grub.cfg"),
        (
            "Gave up waiting for root.\r\nALERT!  /dev/xvda2 does not exist.  Dropping to a shell!",
            "initramfs",
        ),
        ("[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n", "kernel panicked"),
        ("You are in emergency mode. After logging in, type", "emergency mode"),
        ("Give root password for maintenance\r\n", "emergency mode"),
    ],
)
def test_a_boot_that_is_lost_ends_the_wait_at_once(console: str, meaning: str, tmp_path: Path) -> None:
    started = time.monotonic()
    spec = disk_with(printing(console), tmp_path)
    with booted(spec, tmp_path) as machine, pytest.raises(Failed, match=meaning) as failure:
        machine.wait_for("login:", 300)
    assert time.monotonic() - started < 30
    assert console.split("\r\n", maxsplit=1)[0][:12].strip() in str(failure.value)


def test_an_empty_disk_is_reported_by_the_bios(tmp_path: Path) -> None:
    spec = disk_with(b"", tmp_path)
    with booted(spec, tmp_path) as machine, pytest.raises(Failed, match="BIOS found nothing to boot"):
        machine.wait_for("login:", 300)


@pytest.mark.skipif(not GRUB_IMAGES.exists(), reason="needs grub-pc-bin")
def test_a_real_grub_without_its_files_is_recognised(tmp_path: Path) -> None:
    core = tmp_path / "core.img"
    command = ["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", str(core), "biosdisk"]
    subprocess.run(command, check=True)
    boot = (GRUB_IMAGES / "boot.img").read_bytes()
    (tmp_path / "disk").write_bytes((boot + core.read_bytes()).ljust(DISK_BYTES, b"\0"))
    spec = MachineSpec(tmp_path / "disk", memory_mib=64, accelerator="tcg")
    with booted(spec, tmp_path) as machine, pytest.raises(Failed, match="GRUB did not find its own files"):
        machine.wait_for("login:", 300)


def test_fatal_signs_can_be_switched_off(tmp_path: Path) -> None:
    spec = disk_with(printing("grep: Kernel panic - not syncing\r\nweb login:"), tmp_path)
    with booted(spec, tmp_path) as machine:
        assert machine.wait_for("login:", 20, fatal=()).text == "login:"


def test_every_fatal_sign_says_what_to_do() -> None:
    for sign in FATAL:
        assert re.compile(sign.pattern)
        assert sign.meaning
        assert sign.way_out


def test_a_guest_that_resets_ends_the_machine(tmp_path: Path) -> None:
    spec = disk_with(printing("Rebooting.", then_reset=True), tmp_path)
    with booted(spec, tmp_path) as machine:
        assert 0 < machine.wait_for_end(20) < 20
        assert "Rebooting." in machine.last_lines()[-1]
        with pytest.raises(Failed, match="not running"):
            machine.send_line("anyone?")


def test_waiting_on_a_machine_that_ended_is_an_error(tmp_path: Path) -> None:
    spec = disk_with(printing("Rebooting.", then_reset=True), tmp_path)
    with booted(spec, tmp_path) as machine, pytest.raises(Failed, match="QEMU ended") as failure:
        machine.wait_for("login:", 20)
    assert "Rebooting." in str(failure.value)


def test_a_disk_in_use_is_not_opened_twice(tmp_path: Path) -> None:
    spec = disk_with(printing(LOGIN), tmp_path)
    with booted(spec, tmp_path) as first:
        first.wait_for("login:", 20)
        with Machine(spec, tmp_path / "second.log") as second, pytest.raises(Failed, match="lock"):
            second.wait_for("login:", 20)


def test_the_process_is_gone_after_an_exception(tmp_path: Path) -> None:
    spec = disk_with(printing(LOGIN), tmp_path)
    with pytest.raises(KeyboardInterrupt), booted(spec, tmp_path):
        assert len(emulators_on(spec.disk)) == 1
        raise KeyboardInterrupt
    assert emulators_on(spec.disk) == []


def test_a_snapshot_boots_and_the_disk_keeps_its_bytes(tmp_path: Path) -> None:
    spec = replace(disk_with(printing(LOGIN), tmp_path), snapshot=True)
    before = hashlib.sha256(spec.disk.read_bytes()).hexdigest()
    with booted(spec, tmp_path) as machine:
        machine.wait_for("login:", 20)
    assert hashlib.sha256(spec.disk.read_bytes()).hexdigest() == before


def test_a_pattern_that_is_no_expression_is_refused(tmp_path: Path) -> None:
    spec = disk_with(printing(LOGIN), tmp_path)
    with booted(spec, tmp_path) as machine, pytest.raises(Usage, match="no regular expression"):
        machine.wait_for("login(", 20)
