"""kill -9 while an overlay of the target is in use: the job's next command removes what is left."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The command itself, killed where it calls what the first argument names: MODULE:CLASS.METHOD.
KILLED = """
import importlib, os, signal, sys
from orchestrate import cli
module, _, place = sys.argv.pop(1).partition(":")
kind, _, method = place.partition(".")
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(getattr(importlib.import_module(module), kind), method, die)
cli.main()
"""
UNDOING = "orchestrate.guest.files.tree:GuestTree.restore"
FIXING = "orchestrate.guest.files.tree:GuestTree.apply"
SENDING = "orchestrate.copying.source:Here.send"
PROVING = "orchestrate.copying.source:Here.compare"
BOOTING = "orchestrate.kvm.machine:Machine.wait_for"


def killed(guest, place: str, *command: str) -> None:
    argv = [sys.executable, "-c", KILLED, place, command[0], guest.plan, f"--job-dir={guest.folder / 'job'}"]
    done = subprocess.run([*argv, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert overlays(guest)


def overlays(guest) -> list[Path]:
    return list((guest.folder / "job").glob("overlay-*"))


def left_of(guest) -> list[str]:
    """Folders, processes, mounts and loop devices; a device goes a moment after its last user."""
    processes = [told.parent.name for told in Path("/proc").glob("[0-9]*/cmdline") if names(told, guest)]
    mounts = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(guest.folder) in line
    ]
    return [*map(str, overlays(guest)), *processes, *mounts, *loop_devices(guest)]


def names(command_line: Path, guest) -> bool:
    try:
        return str(guest.folder / "job" / "overlay-").encode() in command_line.read_bytes()
    except OSError:
        return False


def loop_devices(guest) -> list[str]:
    command = ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]
    for _ in range(50):
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [
            each for each in found.stdout.splitlines() if str(guest.folder) in each or each.endswith(" /")
        ]
        if not lines:
            break
        time.sleep(0.1)
    return lines


@pytest.mark.parametrize("place", [UNDOING, SENDING, PROVING])
def test_a_killed_sending_back_leaves_nothing_after_the_next(planned_guest, place):
    planned_guest.result("sync")
    planned_guest.result("cutover")
    killed(planned_guest, place, "rollback", "--send-back")
    planned_guest.result("rollback", "--send-back")
    assert left_of(planned_guest) == []


def test_a_rollback_that_needs_no_overlay_removes_what_is_left_as_well(planned_guest):
    planned_guest.result("sync")
    planned_guest.result("cutover")
    killed(planned_guest, UNDOING, "rollback", "--send-back")
    planned_guest.result("rollback", "--discard", "--yes")
    assert left_of(planned_guest) == []


@pytest.mark.boots
@pytest.mark.parametrize("place", [FIXING, BOOTING])
def test_a_killed_rehearsal_leaves_nothing_after_the_next(planned_guest, place):
    planned_guest.result("sync")
    killed(planned_guest, place, "rehearse")
    planned_guest.result("rehearse", "--expect=GRUB")
    assert left_of(planned_guest) == []
