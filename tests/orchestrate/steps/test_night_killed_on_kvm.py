"""kill -9 and cut links around the start on KVM, in a real libvirt: never on both sides, nothing is left."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from played_night import kept_in, move_to_played_host, night, runs_on_kvm
from test_take_over_on_kvm import state

from orchestrate.job import journal

pytestmark = pytest.mark.boots

STEPS = (
    "define",
    "start",
    "console",
    "address",
    "announce",
    "checks",
    "autostart",
    "drop snapshots",
    "report",
)
# A step's end is the next one's beginning; inside "start" the owner changes before anything runs.
MOMENTS = [*(("begin", step) for step in STEPS), ("note", "owner"), ("end", "report")]
KILLED_ANYWHERE = pytest.mark.parametrize(("moment", "what"), MOMENTS)


@pytest.fixture
def tmp_path(reachable_folder: Path) -> Path:
    return reachable_folder


@pytest.fixture
def moving_guest(planned_guest, virsh) -> Iterator[Any]:
    """A guest that was copied once from a moment of its played host."""
    assert not runs_on_kvm()
    move_to_played_host(planned_guest)
    copied = night(planned_guest, "sync")
    assert copied.returncode == 0, copied.stderr
    assert kept_in(planned_guest.folder).snapshots
    yield planned_guest


def killed(guest, moment: str, what: str) -> None:
    done = night(guest, "cutover", moment, what)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (kept_in(guest.folder).running and runs_on_kvm())


def content_of(guest) -> journal.Content:
    content = journal.read(guest.folder / "job")
    assert content is not None
    return content


def volumes_of(guest) -> dict[str, bytes]:
    host = kept_in(guest.folder)
    return {name: host.file(name).read_bytes() for name in host.uuids}


def assert_moved(guest, virsh: list[str], done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    host = kept_in(guest.folder)
    assert (host.running, host.met, host.starts, host.snapshots) == (False, False, 0, {})
    assert state(virsh) == "running"
    assert (content_of(guest).owner, content_of(guest).closed) == ("kvm", "done")
    assert (guest.folder / "report.json").exists()


def assert_back(guest, before: dict[str, bytes], done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    host = kept_in(guest.folder)
    assert (host.running, host.met, host.starts, host.snapshots) == (True, False, 1, {})
    assert not runs_on_kvm()
    assert volumes_of(guest) == before
    assert content_of(guest).closed == "rolled-back"


@KILLED_ANYWHERE
def test_a_start_on_kvm_killed_anywhere_goes_on(moving_guest, virsh, moment, what):
    killed(moving_guest, moment, what)
    assert_moved(moving_guest, virsh, night(moving_guest, "cutover"))


@KILLED_ANYWHERE
def test_a_start_on_kvm_killed_anywhere_rolls_back(moving_guest, moment, what):
    before = volumes_of(moving_guest)
    killed(moving_guest, moment, what)
    assert_back(moving_guest, before, night(moving_guest, "rollback"))


def cut_off(guest, step: str) -> None:
    done = night(guest, "cutover", "cut", step)
    assert done.returncode == 1, done.stderr
    assert "the link broke" in done.stderr
    assert "hint:" in done.stderr
    host = kept_in(guest.folder)
    assert not (host.running or host.met)
    # What is still to be dropped is not forgotten.
    assert host.snapshots


@pytest.mark.parametrize("step", ["start", "console"])
def test_a_link_to_xen_cut_around_the_start_on_kvm_comes_back_and_the_cutover_goes_on(
    moving_guest, virsh, step
):
    cut_off(moving_guest, step)
    assert runs_on_kvm() == (step == "console")
    assert_moved(moving_guest, virsh, night(moving_guest, "cutover"))


@pytest.mark.parametrize("step", ["start", "console"])
def test_a_link_to_xen_cut_around_the_start_on_kvm_comes_back_and_the_guest_goes_back(moving_guest, step):
    before = volumes_of(moving_guest)
    cut_off(moving_guest, step)
    assert_back(moving_guest, before, night(moving_guest, "rollback"))
