"""A guest's whole way from a real Xen host to a real libvirt and back: no record of its witness is lost."""

from pathlib import Path
from typing import Any

import pytest
from kvm_side import PATIENCE, KvmSide
from lab_places import GUEST
from xen_host import XenLab

pytestmark = pytest.mark.timeout(7200)

MIGRATIONS = 3
MAX_DOWNTIME = 10.0
# The steps from the stopped guest to the started one: a downtime without its own shutdown and boot.
OURS = {
    *("prove that it is stopped", "last pass", "verify"),
    *("fix-ups", "boot loader", "define", "start"),
}


def write_more(lab: XenLab) -> None:
    """A few MiB besides what the witness writes."""
    lab.shell("dd if=/dev/urandom of=/var/tmp/more bs=64k count=40 conv=fsync 2>/dev/null", host=GUEST)


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
    downtimes = [migrate_and_come_back(side, tmp_path / "0")]
    for number in range(1, MIGRATIONS):
        side.step("sync", "--again", "--yes")
        write_more(lab)
        downtimes.append(migrate_and_come_back(side, tmp_path / str(number)))
    assert max(downtimes) < MAX_DOWNTIME, downtimes


def migrate_and_come_back(side: KvmSide, folder: Path) -> float:
    """Cut over, look, send back, look again; the seconds from the stopped guest to the started one."""
    report = side.step("cutover", "--start", *PATIENCE)
    durable = side.assert_moved(folder / "moved")
    last_pass = report["last_pass"]
    assert 0 < last_pass["bytes_read"] <= 2 * last_pass["bytes_changed"], "only what changed is read"
    # The lab's guest has no dbus, so no logind, and nobody in it who heeds a power button.
    side.power_off()
    side.step("rollback", "--send-back", "--yes")
    side.assert_back(folder / "back", durable)
    return our_downtime(report)
