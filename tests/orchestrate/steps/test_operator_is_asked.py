"""What is in doubt is asked at a terminal (a real one), and refused where there is none."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from msgspec.structs import replace
from test_cutover_journal import journal_of
from xl_double import GUEST

from orchestrate.handover import preflight
from orchestrate.job.folder import Job, PassRecord
from orchestrate.plan.file import load

XEN2KVM = Path(sys.executable).parent / "xen2kvm"
REFUSED = 3
STAYS = "wait on, destroy it, or leave it running"
GO_ON = "Go on all the same"


@contextmanager
def cutover(guest, *options: str) -> Iterator[pexpect.spawn]:
    """The command at a terminal."""
    words = ["cutover", str(guest.plan), f"--job-dir={guest.folder / 'job'}", *options]
    with pexpect.spawn(str(XEN2KVM), words, env={**os.environ}, timeout=60) as terminal:
        yield terminal


def ended(terminal: pexpect.spawn) -> int:
    terminal.expect(pexpect.EOF)
    terminal.wait()
    return terminal.exitstatus


@pytest.fixture
def stubborn(planned_guest, xl):
    """A guest that does not hear that it should stop."""
    planned_guest.result("sync")
    xl.is_stubborn()
    return planned_guest


def at_the_limit(guest) -> Iterator[pexpect.spawn]:
    return cutover(guest, "--override=not-rehearsed", "--shutdown-timeout=1")


def test_a_guest_that_stays_is_waited_for_and_then_left_running_if_the_operator_says_so(stubborn, xl):
    with at_the_limit(stubborn) as terminal:
        terminal.expect(STAYS)
        terminal.sendline("w")
        terminal.expect(STAYS)
        terminal.sendline("")
        assert ended(terminal) == REFUSED
    assert xl.running
    assert xl.calls("destroy") == []
    assert "last pass" not in [entry["step"] for entry in journal_of(stubborn)["steps"]]


def test_a_guest_that_stops_while_it_is_waited_for_goes_on(stubborn, xl):
    with at_the_limit(stubborn) as terminal:
        terminal.expect(STAYS)
        (xl.folder / "running").unlink()
        terminal.sendline("w")
        assert ended(terminal) == 0
    assert xl.calls("destroy") == []


def test_a_guest_is_destroyed_only_by_the_operator_s_word(stubborn, xl):
    with at_the_limit(stubborn) as terminal:
        terminal.expect(STAYS)
        terminal.sendline("d")
        assert ended(terminal) == 0
    assert not xl.running
    assert len(xl.calls("destroy")) == 1


def test_a_guest_that_was_never_rehearsed_is_asked_about_and_not_stopped_without_a_yes(planned_guest, xl):
    planned_guest.result("sync")
    with cutover(planned_guest) as terminal:
        terminal.expect(f"{GUEST} was never rehearsed")
        terminal.expect(GO_ON)
        terminal.sendline("")
        assert ended(terminal) == REFUSED
    assert xl.running
    assert journal_of(planned_guest)["stopped"] is None
    with cutover(planned_guest) as terminal:
        terminal.expect(GO_ON)
        terminal.sendline("y")
        assert ended(terminal) == 0
    assert not xl.running
    assert journal_of(planned_guest)["accepted"] == [preflight.NOT_REHEARSED]


def test_without_a_terminal_a_risk_is_refused_by_its_name(planned_guest, xl):
    planned_guest.result("sync")
    done = planned_guest.xen2kvm("cutover", planned_guest.plan, f"--job-dir={planned_guest.folder / 'job'}")
    assert done.returncode == REFUSED
    assert "--override not-rehearsed" in done.stderr
    assert xl.running
    assert xl.calls("shutdown") == []


def test_passes_that_do_not_converge_are_a_risk_of_their_own(planned_guest, xl):
    planned_guest.result("sync")
    job = Job(planned_guest.folder / "job", load(planned_guest.plan))
    for at in (0.0, 100.0):
        job.remember(job.state().with_pass(pass_of(at, seconds=100.0, changed=10**8)))
    done = planned_guest.step("cutover")
    assert done.returncode == REFUSED
    assert "the guest changes" in done.stderr
    assert xl.running
    assert planned_guest.step("cutover", "--override=not-converging").returncode == 0


def test_a_long_last_pass_is_a_risk_only_where_there_is_a_limit(planned_guest):
    planned_guest.result("sync")
    job = Job(planned_guest.folder / "job", load(planned_guest.plan))
    records = (pass_of(0.0, seconds=100.0, changed=10**9), pass_of(1000.0, seconds=30.0, changed=10**6))
    job.remember(replace(job.state(), rehearsed="yesterday", records=records))
    assert preflight.risks(job, None) == ()
    (risk,) = preflight.risks(job, 10.0)
    assert risk.guard == preflight.NOT_CONVERGING
    assert preflight.risks(job, 60.0) == ()


def pass_of(at: float, *, seconds: float, changed: int) -> PassRecord:
    return PassRecord(
        at=at,
        seconds=seconds,
        looked_at=changed,
        read=changed,
        changed=changed,
        written=changed,
        source="volumes",
    )
