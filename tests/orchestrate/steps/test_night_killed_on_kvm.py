"""kill -9 around the start on KVM, in a real libvirt: never on both sides, and nothing is left behind."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from played_night import kept_in, move_to_played_host, night, runs_on_kvm
from test_take_over_on_kvm import state

from orchestrate import journal

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


@KILLED_ANYWHERE
def test_a_start_on_kvm_killed_anywhere_goes_on(moving_guest, virsh, moment, what):
    killed(moving_guest, moment, what)
    done = night(moving_guest, "cutover")
    assert done.returncode == 0, done.stderr
    host = kept_in(moving_guest.folder)
    assert (host.running, host.met, host.starts, host.snapshots) == (False, False, 0, {})
    assert state(virsh) == "running"
    assert (content_of(moving_guest).owner, content_of(moving_guest).closed) == ("kvm", "done")
    assert (moving_guest.folder / "report.json").exists()


@KILLED_ANYWHERE
def test_a_start_on_kvm_killed_anywhere_rolls_back(moving_guest, virsh, moment, what):
    host = kept_in(moving_guest.folder)
    before = {name: host.file(name).read_bytes() for name in host.uuids}
    killed(moving_guest, moment, what)
    done = night(moving_guest, "rollback")
    assert done.returncode == 0, done.stderr
    host = kept_in(moving_guest.folder)
    assert (host.running, host.met, host.starts, host.snapshots) == (True, False, 1, {})
    assert not runs_on_kvm()
    assert {name: host.file(name).read_bytes() for name in host.uuids} == before
    assert content_of(moving_guest).closed == "rolled-back"
