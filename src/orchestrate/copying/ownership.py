"""Whose the target is: a copy that passes may write to, or a guest's disk that they may not.

Each of three witnesses can be lost or be about something else: the state and the journal in the job's folder,
and the mark on the disk itself. So each of them alone is enough to say that the disk is a guest's.
"""

from contextlib import suppress
from datetime import UTC, datetime

from msgspec.structs import replace

from blocksync.devices import device, guards, target
from blocksync.errors import BlocksyncError, Refused
from orchestrate import fencing
from orchestrate.job import journal as journals
from orchestrate.job.folder import Job, JobState, Phase
from orchestrate.job.journal import Closed, Content, Journal, Owner
from orchestrate.job.send_back_mark import refuse_torn
from orchestrate.layout import mark as marks
from orchestrate.layout.mark import HandoverMark
from orchestrate.layout.table import SECTOR
from orchestrate.plan.model import Plan, table

GUARD = "handed-over"


def is_a_guest_s(state: JobState, journal: Content | None, mark: HandoverMark | None) -> bool:
    """Whether the target is a guest's disk, by what the three witnesses say. Pure."""
    if state.phase is Phase.HANDED_OVER:
        return True
    if mark is not None and (journal is None or mark.cutover != journal.cutover):
        return True
    if journal is None or journal.closed is Closed.ROLLED_BACK:
        return False
    # Written just before the hand-over, by a cutover that was killed in it and may go on.
    if state.phase is Phase.FINISHING and journal.closed is None and journal.owner is Owner.XEN:
        return False
    return mark is not None or journal.handed_over or journal.owner is Owner.KVM


def may_have_written_on_kvm(state: JobState, journal: Content | None, mark: HandoverMark | None) -> bool:
    """Whether the guest may have run on KVM: we started it, the disk was given to the operator, or nobody can
    tell any more. Pure.
    """
    if journal is not None and journal.owner is Owner.KVM:
        return True
    if not is_a_guest_s(state, journal, mark):
        return False
    # Handed over, and the start is still to come: the journal alone can prove it.
    return not (journal is not None and journal.handed_over and journal.closed is None)


def mark_on(plan: Plan) -> HandoverMark | None:
    """The mark on the plan's disk; None where there is none, or no disk. Raises Usage, Failed."""
    at = marks.place(table(plan).boot_area)
    if not plan.target.exists() or device.measure(plan.target).size < at + SECTOR:
        return None
    return marks.unpack(device.read_range(plan.target, at, SECTOR))


def require_copy(job: Job) -> JobState:
    """The job's state, if passes may write to the target. Raises `Refused` (guard `handed-over`) once it is a
    guest's disk, whatever tells it, and what reading state, journal and mark raises.
    """
    state, journal, mark = witnesses(job)
    if is_a_guest_s(state, journal, mark):
        raise Refused(
            job.plan.disk.path,
            f"is the disk of a KVM guest since the cutover of {_guest(job, mark)}{_when(mark)}",
            "`xen2kvm status` says where it stands, `xen2kvm rollback` brings the guest back to Xen; "
            "another copy needs another disk",
            guard=GUARD,
        )
    return state


def begin_passes(job: Job, *, again: bool) -> JobState:
    """As `require_copy`; with `again` a guest's disk is made a copy first, see `take_back`."""
    if again and is_a_guest_s(*witnesses(job)):
        take_back(job)
    return require_copy(job)


def witnesses(job: Job) -> tuple[JobState, Content | None, HandoverMark | None]:
    """What the state, the journal and the disk say. Raises `Failed`, `Refused` for one not to be believed."""
    journal = journals.read_about(job.folder, job.plan.guest.name, job.plan.target)
    return job.state(), journal, mark_on(job.plan)


def at_stake(job: Job) -> str | None:
    """What is lost if passes write to the target again, as a clause; None if nothing is."""
    state, journal, mark = witnesses(job)
    if not may_have_written_on_kvm(state, journal, mark):
        return None
    since = _when(mark).replace(", ", " since ", 1)
    return f"all that {_guest(job, mark)} wrote on KVM{since}, on {job.plan.disk.path}"


def mark_handed_over(job: Job, journal: Journal) -> None:
    """Say on the disk that it is the guest's from now on; the journal knows the mark before. Durable."""
    journal.draw_cutover()
    now = int(datetime.now(UTC).timestamp())
    _write_mark(job.plan, HandoverMark(job.plan.guest.name, now, journal.content.cutover).pack())


def take_back(job: Job) -> None:
    """Make the target a copy again of which nothing is known: what a guest wrote to it is given up.

    The operator's word for that is the caller's to have. Raises `Refused` while anybody uses the disk, or
    while half of what is on it was sent to the Xen volumes: then it alone is whole.
    """
    refuse_torn(job)
    if (kvm := fencing.kvm_side_if_any(job.plan)) is not None:
        kvm.require_absent()
    guards.not_in_use(device.measure(job.plan.target))
    _write_mark(job.plan, marks.NONE)
    job.forget_digests()
    job.remember(replace(job.state().without_moment(), phase=Phase.FINISHING, repaired=None))
    journal = journals.opened(job.folder, job.plan.guest.name, job.plan.target)
    if journal.exists:
        journal.start_anew()


def unmark(job: Job) -> None:
    """Take the mark off the disk of a guest that is back on Xen. The journal says so as well, so that a disk
    which cannot be written to now is no reason to fail.
    """
    with suppress(BlocksyncError):
        if mark_on(job.plan) is not None:
            _write_mark(job.plan, marks.NONE)


def _write_mark(plan: Plan, sector: bytes) -> None:
    target.write_ranges(plan.target, ((marks.place(table(plan).boot_area), sector),))


def _guest(job: Job, mark: HandoverMark | None) -> str:
    return job.plan.guest.name if mark is None else mark.guest


def _when(mark: HandoverMark | None) -> str:
    if mark is None or not mark.since:
        return ""
    return f", {datetime.fromtimestamp(min(mark.since, 2**37), UTC):%Y-%m-%d %H:%M} UTC"
