"""Whose a target is, by what its job and the disk itself say."""

import pytest

from orchestrate.copying.ownership import is_a_guest_s, may_have_written_on_kvm
from orchestrate.job.folder import JobState, Phase
from orchestrate.job.journal import Closed, Content, Owner
from orchestrate.layout.mark import HandoverMark

OURS, OTHER = "aa" * 16, "bb" * 16


def state(phase: Phase = Phase.PASSES) -> JobState:
    return JobState(target="/target", phase=phase)


def journal(**fields) -> Content:
    return Content(guest="web1", target="/target", cutover=OURS, **fields)


def mark(cutover: str = OURS) -> HandoverMark:
    return HandoverMark("web1", 1700000000, cutover)


@pytest.mark.parametrize(
    ("witnesses", "a_guest_s", "may_have_written"),
    [
        # Copies.
        ((state(), None, None), False, False),
        ((state(), journal(), None), False, False),
        # Killed just before the hand-over, with and without the mark.
        ((state(Phase.FINISHING), journal(), None), False, False),
        ((state(Phase.FINISHING), journal(), mark()), False, False),
        ((state(Phase.FINISHING), journal(handed_over=True), mark()), False, False),
        # Handed over, not started by us yet.
        ((state(Phase.HANDED_OVER), journal(handed_over=True), mark()), True, False),
        # Started, or given to the operator to start.
        ((state(Phase.HANDED_OVER), journal(handed_over=True, owner=Owner.KVM), mark()), True, True),
        ((state(Phase.HANDED_OVER), journal(handed_over=True, closed=Closed.DONE), mark()), True, True),
        ((state(Phase.HANDED_OVER), journal(handed_over=True, closed=Closed.FINISHED), mark()), True, True),
        # One witness after the other is lost.
        ((state(Phase.HANDED_OVER), None, mark()), True, True),
        ((state(Phase.HANDED_OVER), None, None), True, True),
        ((state(), journal(handed_over=True, closed=Closed.DONE), mark()), True, True),
        ((state(), journal(handed_over=True, closed=Closed.DONE), None), True, True),
        ((state(), journal(owner=Owner.KVM), None), True, True),
        ((state(), None, mark()), True, True),
        # The mark is of another cutover: another folder's, or of a time before this journal.
        ((state(), journal(), mark(OTHER)), True, True),
        ((state(Phase.FINISHING), journal(), mark(OTHER)), True, True),
        ((state(), journal(closed=Closed.ROLLED_BACK), mark(OTHER)), True, True),
        # Back on Xen.
        ((state(Phase.FINISHING), journal(closed=Closed.ROLLED_BACK), None), False, False),
        ((state(), journal(closed=Closed.ROLLED_BACK), mark()), False, False),
    ],
)
def test_each_witness_alone_says_that_a_disk_is_a_guest_s(witnesses, a_guest_s, may_have_written):
    assert is_a_guest_s(*witnesses) == a_guest_s
    assert may_have_written_on_kvm(*witnesses) == may_have_written
