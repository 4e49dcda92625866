"""A cutover that stops its guest on Xen, is killed at each step, goes on, and comes back; without a boot."""

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from test_passes_and_cutover import digest, on_target

STEPS = (
    "check",
    "pass before the proof",
    "make ready",
    "stop",
    "prove that it is stopped",
    "last pass",
    "verify",
    "fix-ups",
    "boot loader",
    "write the fix-ups",
    "drop snapshots",
    "report",
)
# The command itself, killed as soon as a step has begun, or was done.
KILLED = """
import os, signal, sys
from orchestrate import cli; from orchestrate.job import journal
moment, step = sys.argv.pop(1), sys.argv.pop(1)
told = getattr(journal.Journal, moment)
def tell(self, what):
    told(self, what)
    if (what if isinstance(what, str) else what.name) == step:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(journal.Journal, moment, tell)
cli.main()
"""
# The same, with the target's file systems mounted.
KILLED_AMONG_THE_FIX_UPS = """
import os, signal
from orchestrate import cli
from orchestrate.handover import convert as finishing
finishing._write_grub_files = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cli.main()
"""


def journal_of(guest) -> dict[str, Any]:
    return json.loads((guest.folder / "job" / "journal.json").read_text())


def loop_devices_on(path) -> str:
    command = ["losetup", "--list", "--noheadings", "--output=name", f"--associated={path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def killed(guest, *words: str, script: str = KILLED) -> None:
    options = [word for word in words if word.startswith("--")]
    command = [sys.executable, "-c", script, *(word for word in words if word not in options)]
    command += ["cutover", str(guest.plan), "--override=not-rehearsed", *options]
    done = subprocess.run(
        [*command, f"--job-dir={guest.folder / 'job'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_the_guest_is_stopped_once_and_only_then_the_last_pass_is_made(planned_guest, xl):
    planned_guest.result("sync")
    report = planned_guest.result("cutover")
    assert not xl.running
    assert len(xl.calls("shutdown")) == 1
    assert xl.calls("destroy") == []
    names = [step["name"] for step in report["steps"]]
    # The report is of what was done before it.
    assert [name for name in names if name in STEPS] == [step for step in STEPS if step != "report"]
    assert report["proofs"].keys() == {"xvda2", "xvda3"}
    content = journal_of(planned_guest)
    assert (content["owner"], content["closed"]) == ("xen", "done")
    assert content["stopped"] is not None
    (kept,) = (planned_guest.folder / "job").glob("report-*.json")
    in_the_job = json.loads(kept.read_text())
    assert in_the_job == {name: report[name] for name in in_the_job}


def test_a_guest_that_does_not_stop_is_left_running_and_nothing_is_handed_over(planned_guest, xl):
    planned_guest.result("sync")
    xl.is_stubborn()
    done = planned_guest.step("cutover", "--shutdown-timeout=1")
    assert done.returncode == 3
    assert "it was left running on Xen" in done.stderr
    assert xl.running
    assert xl.calls("destroy") == []
    assert journal_of(planned_guest)["steps"][-1]["status"] == "failed"
    assert json.loads((planned_guest.folder / "job" / "state.json").read_text())["phase"] == "passes"


def test_an_open_volume_is_named_before_the_last_pass(planned_guest, xl):
    planned_guest.result("sync")
    holder = subprocess.Popen(["sleep", "300"], stdin=planned_guest.volumes["xvda3"].open("rb"))
    try:
        done = planned_guest.step("cutover")
    finally:
        holder.kill()
        holder.wait()
    assert done.returncode == 3
    assert re.search(rf"process.* {holder.pid}", done.stderr)
    assert "last pass" not in [entry["step"] for entry in journal_of(planned_guest)["steps"]]


@pytest.mark.parametrize("option", ["-E mount_opts=debug", "-O mmp"])
def test_a_file_system_that_would_not_be_mounted_is_named_before_the_stop(planned_guest, xl, option):
    subprocess.run(["tune2fs", *option.split(), planned_guest.volumes["xvda2"]], check=True)
    planned_guest.result("sync")
    done = planned_guest.step("cutover")
    assert done.returncode == 3
    assert "its file system is not mounted" in done.stderr
    assert xl.running
    assert xl.calls("shutdown") == []


@pytest.mark.parametrize("moment", ["begin", "end"])
@pytest.mark.parametrize("step", STEPS)
def test_a_cutover_killed_at_any_step_goes_on(planned_guest, xl, moment, step):
    before = {device: digest(path) for device, path in planned_guest.volumes.items()}
    killed(planned_guest, moment, step)
    report = planned_guest.result("cutover")
    assert not xl.running
    assert len(xl.calls("shutdown")) == 1
    assert not report["started"]
    assert journal_of(planned_guest)["closed"] == "done"
    assert {device: digest(path) for device, path in planned_guest.volumes.items()} == before
    assert on_target(planned_guest, "xvda3") == planned_guest.volumes["xvda3"].read_bytes()


@pytest.mark.parametrize("step", STEPS)
def test_a_cutover_killed_at_any_step_rolls_back(planned_guest, xl, step):
    before = {device: digest(path) for device, path in planned_guest.volumes.items()}
    killed(planned_guest, "begin", step)
    assert planned_guest.result("rollback")["started"]
    assert xl.running
    assert {device: digest(path) for device, path in planned_guest.volumes.items()} == before
    assert journal_of(planned_guest)["closed"] == "rolled-back"
    planned_guest.result("sync")
    assert on_target(planned_guest, "xvda2") == planned_guest.volumes["xvda2"].read_bytes()


@pytest.mark.parametrize("way_on", [("cutover",), ("rollback", "sync")])
def test_a_kill_among_the_fix_ups_leaves_nothing_mounted_of_the_target(planned_guest, xl, way_on):
    killed(planned_guest, "--override=fix-ups", script=KILLED_AMONG_THE_FIX_UPS)
    (overlay,) = (planned_guest.folder / "job").glob("overlay-*")
    for command in way_on:
        planned_guest.result(command)
    assert not overlay.exists()
    assert not loop_devices_on(planned_guest.target)
    assert on_target(planned_guest, "xvda3") == planned_guest.volumes["xvda3"].read_bytes()
    assert xl.running == ("rollback" in way_on)


def test_a_guest_that_may_have_written_on_kvm_is_not_rolled_back_without_a_choice(planned_guest, xl):
    planned_guest.result("cutover")
    done = planned_guest.step("rollback")
    assert done.returncode == 3
    assert "--send-back" in done.stderr
    assert not xl.running
    assert planned_guest.step("rollback", "--discard").returncode == 2
    assert planned_guest.result("rollback", "--discard", "--yes")["started"]
    assert xl.running


def test_what_was_handed_over_is_sent_back_with_its_fixups_undone(planned_guest, xl):
    before = planned_guest.volumes["xvda3"].read_bytes()
    planned_guest.result("cutover")
    report = planned_guest.result("rollback", "--send-back")
    assert report["proofs"].keys() == {"xvda2", "xvda3"}
    assert "/etc/fstab" in report["restored"]
    assert xl.running
    assert planned_guest.volumes["xvda3"].read_bytes() == before


def test_half_written_volumes_are_neither_started_nor_copied(planned_guest, xl):
    planned_guest.result("cutover")
    (planned_guest.folder / "job" / "giving-back").write_text("")
    for command in (("rollback", "--discard", "--yes"), ("cutover", "--again", "--yes")):
        done = planned_guest.step(*command)
        assert done.returncode == 3
        assert "half written" in done.stderr
    assert not xl.running


def test_a_rollback_may_be_repeated(planned_guest, xl):
    killed(planned_guest, "begin", "last pass")
    for _ in range(2):
        assert planned_guest.result("rollback")["started"]
    assert len(xl.calls("create")) == 1


@pytest.mark.parametrize("attempts", [2, 3])
def test_a_rollback_asks_a_busy_xen_host_three_times(planned_guest, xl, attempts):
    killed(planned_guest, "begin", "last pass")
    xl.is_busy_for(attempts)
    done = planned_guest.step("rollback")
    assert (done.returncode == 0) == xl.running == (attempts == 2), done.stderr
    assert len(xl.calls("create")) == 3
    if not xl.running:
        assert "because of timeout" in done.stderr
        assert planned_guest.result("rollback")["started"]


def test_a_second_cutover_after_a_rollback_stops_the_guest_again(planned_guest, xl):
    killed(planned_guest, "begin", "verify")
    planned_guest.result("rollback")
    planned_guest.result("cutover")
    assert not xl.running
    assert len(xl.calls("shutdown")) == 2


def test_finish_is_refused_while_the_guest_is_not_on_kvm(planned_guest, xl):
    done = planned_guest.step("finish")
    assert done.returncode != 0
    assert planned_guest.volumes["xvda2"].exists()
    assert os.environ["PATH"].startswith(str(xl.folder))
