"""`xen2kvm rollback`: the guest goes back to Xen, from wherever the cutover stands.

Until its start on KVM its volumes hold all that it ever wrote. After it, what it wrote since is on the target
alone: it is given up, or sent back. May be interrupted and run again.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from blocksync.errors import BlocksyncError, Refused
from orchestrate import fencing
from orchestrate.copying import ownership, passes
from orchestrate.copying.passes import Tasks
from orchestrate.copying.source import Source
from orchestrate.fencing import Asking, KvmSide, Nobody, XenSide
from orchestrate.guest.files.mounts import unmount_leftovers
from orchestrate.handover import send_back as give_back
from orchestrate.handover import start_on_kvm
from orchestrate.handover.send_back import GiveBackReport
from orchestrate.job import journal as journals
from orchestrate.job.folder import Job, Phase
from orchestrate.job.journal import Closed, Journal, Owner
from orchestrate.job.send_back_mark import refuse_torn
from orchestrate.job.stopwatch import Step, Stopwatch
from orchestrate.kvm.overlay import remove_leftovers


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """What becomes of the guest's writes on KVM: `discard` or `send_back`, neither where it never ran there.
    `shutdown_timeout` is in seconds.
    """

    discard: bool = False
    send_back: bool = False
    shutdown_timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """How the guest came back: `started` says whether it was started on Xen, `gave_back` what was sent."""

    started: bool
    gave_back: GiveBackReport | None
    steps: tuple[Step, ...]


def run(
    job: Job,
    source: Source,
    request: RollbackRequest,
    tasks: Tasks,
    watch: Stopwatch,
    *,
    asking: Asking | None = None,
) -> RollbackReport:
    """Roll back; the guest belongs to Xen when this returns, and runs there if its toolstack answers."""
    journal = journals.opened(job.folder, job.plan.guest.name, job.plan.target)
    night = journal.watched(watch)
    try:
        with night.step("check"):
            xen = fencing.xen_side(job.plan, source.host)
            _require_a_choice(job, journal, request)
            remove_leftovers(job.folder, unmount_leftovers)
        kvm = _stopped_on_kvm(job, journal, request, night, asking or Nobody())
        # A rollback that was killed after the proof goes on from there: the volumes hold everything.
        to_send = request.send_back and job.state().phase is Phase.HANDED_OVER
        gave_back = give_back.run(job, source, tasks, night) if to_send else None
        refuse_torn(job)
        started = _back_on_xen(job, journal, xen, kvm, night)
        if not job.state().is_copy:
            with night.step("drop snapshots"):
                passes.drop_moments(job, source)
    except BlocksyncError as error:
        journal.fail(error.cause)
        raise
    return RollbackReport(started, gave_back, tuple(watch.steps))


def _may_have_written_on_kvm(job: Job) -> bool:
    return ownership.may_have_written_on_kvm(*ownership.witnesses(job))


def _require_a_choice(job: Job, journal: Journal, request: RollbackRequest) -> None:
    if journal.content.closed is Closed.FINISHED:
        raise Refused(
            f"guest {job.plan.guest.name}",
            "was finished on KVM: its Xen volumes may be gone",
            "if they are still there, start it on Xen yourself",
            guard="finished",
        )
    if _may_have_written_on_kvm(job) and not (request.discard or request.send_back):
        raise Refused(
            f"guest {job.plan.guest.name}",
            "may have written on KVM since the cutover",
            "say what becomes of it: --send-back brings it to Xen, --discard gives it up",
            guard="kvm-writes",
        )


def _stopped_on_kvm(
    job: Job, journal: Journal, request: RollbackRequest, watch: Stopwatch, asking: Asking
) -> KvmSide | None:
    """Stop the guest on KVM and see that nothing there has its disk; None where there is no libvirt."""
    if journal.content.owner is Owner.KVM:
        kvm: KvmSide | None = fencing.kvm_side(job.plan)
    else:
        kvm = fencing.kvm_side_if_any(job.plan)
    if kvm is None:
        return None
    with watch.step("stop on KVM"):
        if _may_have_written_on_kvm(job):
            watch.tell("waiting for the guest to shut down", request.shutdown_timeout)
            kvm.stop(request.shutdown_timeout, asking)
        if kvm.state() is not None:
            kvm.libvirt.autostart(job.plan.guest.name, on=False)
        kvm.require_absent()
    return kvm


def _back_on_xen(job: Job, journal: Journal, xen: XenSide, kvm: KvmSide | None, watch: Stopwatch) -> bool:
    state = job.state()
    if not state.is_copy:
        # The target is no copy of the volumes any more: later passes compare everything.
        job.forget_digests()
        job.remember(replace(state.without_moment(), phase=Phase.FINISHING))
    with watch.step("start on Xen"):
        if kvm is not None:
            kvm.require_absent()
        if xen.tools is not None:
            xen.start()
            start_on_kvm.put_autostart_back(journal, xen)
    ownership.unmark(job)
    journal.note(owner=Owner.XEN, handed_over=False, closed=Closed.ROLLED_BACK)
    return xen.tools is not None
