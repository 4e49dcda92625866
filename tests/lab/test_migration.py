"""A guest's whole way from a real Xen host to a real libvirt and back: no record of its witness is lost."""

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_dom0 import volume_names
from kvm_side import KvmSide, kvm_side
from lab_places import GUEST
from witness import LOG, RECORDS, Account, account, acknowledged
from xen_host import XenLab

pytestmark = pytest.mark.timeout(7200)

GUEST_VOLUMES = {f"{GUEST}-{part}" for part in ("swap", "root", "srv")}
MIGRATIONS = 3
MAX_DOWNTIME = 10.0
# The steps from the stopped guest to the started one: a downtime without its own shutdown and boot.
OURS = {
    *("prove that it is stopped", "last pass", "verify"),
    *("fix-ups", "boot loader", "define", "start"),
}
# An emulated guest takes its time, and its witness writes more than emulated passes carry.
PATIENCE = (
    *("--boot-timeout", "900", "--shutdown-timeout", "600"),
    *("--override", "not-rehearsed", "--override", "not-converging"),
)
# The witness is a service of the guest on both sides: a moment of rest shows what it has.
TAKE_OUT = f"systemctl stop witness; tar -C / -c {LOG} srv/{RECORDS}; systemctl start witness"


@pytest.fixture
def side(lab: XenLab, libvirt_uri: str) -> Iterator[KvmSide]:
    """A KVM host; the guest runs on Xen before the test."""
    assert lab.guest_runs()
    with kvm_side(lab, libvirt_uri) as made:
        yield made


def write_more(lab: XenLab) -> None:
    """A few MiB besides what the witness writes."""
    lab.shell("dd if=/dev/urandom of=/var/tmp/more bs=64k count=40 conv=fsync 2>/dev/null", host=GUEST)


def read_account(archive: bytes, folder: Path, expected: dict[int, str]) -> Account:
    """The account of what `TAKE_OUT` printed."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return account(folder, folder / "srv", expected)


def logged(side: KvmSide) -> dict[int, str]:
    """What the witness on the KVM side says is durable."""
    lines = side.inside(f"sync; cat /{LOG}").decode().splitlines()
    return {int(number): digest for number, digest in (line.split() for line in lines)}


def our_downtime(report: dict[str, Any]) -> float:
    """From the stopped guest to the started one, in seconds."""
    return sum(step["seconds"] for step in report["steps"] if step["name"] in OURS)


def test_a_guest_moves_while_it_writes_and_comes_back_three_times_and_no_record_is_lost(
    lab: XenLab, side: KvmSide, tmp_path: Path
) -> None:
    side.make_plan()
    side.step("sync")
    for _ in range(3):
        write_more(lab)
        side.step("sync")
    side.step("rehearse")
    downtimes = [migrate_and_come_back(lab, side, tmp_path / "0")]
    for number in range(1, MIGRATIONS):
        side.step("sync", "--again")
        write_more(lab)
        downtimes.append(migrate_and_come_back(lab, side, tmp_path / str(number)))
    assert max(downtimes) < MAX_DOWNTIME, downtimes


def migrate_and_come_back(lab: XenLab, side: KvmSide, folder: Path) -> float:
    """Cut over, look, send back, look again; the seconds from the stopped guest to the started one."""
    report = side.step("cutover", "--start", *PATIENCE)
    before = acknowledged(lab.guest_console())
    assert not lab.guest_runs()
    assert side.state() == "running"
    assert volume_names(lab) == GUEST_VOLUMES, "no snapshot is left"
    moved = read_account(side.inside(TAKE_OUT), folder / "moved", before)
    assert moved.wrong == ()
    assert moved.last > max(before), "the witness writes on"
    last_pass = report["last_pass"]
    assert 0 < last_pass["bytes_read"] <= 2 * last_pass["bytes_changed"], "only what changed is read"

    time.sleep(10)
    there = logged(side)
    # The lab's guest has no dbus, so no logind, and nobody in it who heeds a power button.
    side.power_off()
    side.step("rollback", "--send-back", "--yes")
    assert side.state() == "shut off"
    assert lab.guest_runs()
    lab.wait_for(GUEST)
    archive = lab.ssh(["sh", "-ec", TAKE_OUT], host=GUEST).stdout
    back = read_account(archive, folder / "back", before | there)
    assert back.wrong == ()
    assert back.last > max(there), "the witness writes on"
    assert volume_names(lab) == GUEST_VOLUMES
    return our_downtime(report)
