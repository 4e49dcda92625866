"""`cutover --start` into a real libvirt and back: the guest boots to its GRUB, which is far enough here."""

import json
import subprocess
from pathlib import Path

import pytest
import xl_double
from xl_double import GUEST, XlDouble

pytestmark = pytest.mark.boots


@pytest.fixture
def tmp_path(reachable_folder: Path) -> Path:
    return reachable_folder


@pytest.fixture
def xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> XlDouble:
    double = xl_double.make(tmp_path / "toolstack")
    monkeypatch.setenv("PATH", double.environment()["PATH"])
    return double


def state(virsh: list[str]) -> str:
    return subprocess.run(
        [*virsh, "domstate", GUEST], capture_output=True, text=True, check=True
    ).stdout.strip()


def expect_grub(guest) -> None:
    """The plan's pattern is GRUB's own, and its check a command that passes."""
    text = guest.plan.read_text().replace('expect = "login:"', 'expect = "GRUB"')
    guest.plan.write_text(f'{text}\n[[check]]\ncommand = ["true"]\n')


def journal_of(guest) -> dict[str, object]:
    return json.loads((guest.folder / "job" / "journal.json").read_text())


def test_the_guest_moves_to_kvm_once_and_comes_back(planned_guest, xl, virsh):
    expect_grub(planned_guest)
    report = planned_guest.result("cutover", "--start", "--boot-timeout=120")
    assert report["started"]
    assert report["downtime"] > 0
    assert [check["passed"] for check in report["checks"]] == [True]
    assert state(virsh) == "running"
    assert not xl.running
    assert (journal_of(planned_guest)["owner"], journal_of(planned_guest)["closed"]) == ("kvm", "done")

    # GRUB does not hear the power button: the guest stays, on KVM, and is not destroyed.
    stays = planned_guest.step("rollback", "--discard", "--yes", "--shutdown-timeout=1")
    assert stays.returncode == 3, stays.stderr
    assert "left running on KVM" in stays.stderr
    assert state(virsh) == "running"
    assert not xl.running

    subprocess.run([*virsh, "destroy", GUEST], check=True)
    assert planned_guest.result("rollback", "--discard", "--yes")["started"]
    assert xl.running
    assert state(virsh) == "shut off"


def test_a_guest_that_somebody_started_on_xen_again_is_not_started_on_kvm(planned_guest, xl, virsh):
    expect_grub(planned_guest)
    planned_guest.result("cutover", "--start", "--boot-timeout=120")
    subprocess.run([*virsh, "destroy", GUEST], check=True)
    job = planned_guest.folder / "job" / "journal.json"
    job.write_text(job.read_text().replace('"closed": "done"', '"closed": null'))
    xl.start()
    done = planned_guest.step("cutover", "--start")
    assert done.returncode == 3
    assert "is on Xen still, or again" in done.stderr
    assert state(virsh) == "shut off"


def test_finish_drops_nothing_of_the_guests_and_prints_what_removes_its_volumes(planned_guest, xl, virsh):
    expect_grub(planned_guest)
    planned_guest.result("cutover", "--start", "--boot-timeout=120")
    done = planned_guest.step("finish", "--mark")
    assert done.returncode == 0, done.stderr
    for volume in planned_guest.volumes.values():
        assert f"rm -- {volume}" in done.stdout
        assert volume.exists()
    assert not xl.running
    assert state(virsh) == "running"
    assert planned_guest.step("rollback", "--discard", "--yes").returncode == 3
