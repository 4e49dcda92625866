"""`xen2kvm cutover`: stop, the last pass, the proof, the fix-ups, and the guest starts on KVM.

Each step may be interrupted, and the same command goes on. Until the target is handed over it starts over:
where fix-ups were written to the target it becomes the volumes' copy again first. After that only the start
on KVM is left, and nothing is copied any more.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from blocksync.errors import BlocksyncError, Failed
from blocksync.hosts.host import HostLost
from orchestrate import fencing
from orchestrate.copying import ownership
from orchestrate.copying import passes as sync
from orchestrate.copying.passes import SyncReport, SyncRequest, Tasks
from orchestrate.copying.source import Source
from orchestrate.fencing import Asking, KvmSide, Nobody, XenSide
from orchestrate.guest.files.mounts import unmount_leftovers
from orchestrate.handover import domain_file, preflight, start_on_kvm
from orchestrate.handover.checks import Result
from orchestrate.handover.convert import repair
from orchestrate.job import journal as journals
from orchestrate.job.folder import Job, Phase
from orchestrate.job.journal import Closed, Journal, Owner
from orchestrate.job.stopwatch import Step, Stopwatch
from orchestrate.kvm import accel
from orchestrate.kvm.domain import DomainNic, DomainSpec, domain_xml
from orchestrate.kvm.overlay import remove_leftovers

_FRESH_SECONDS = 60.0
"""A moment that is no older makes one more pass before the stop not worth its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoverRequest:
    """`xml` is where the domain's XML goes; `start` defines and starts it in libvirt. Times in seconds;
    `max_downtime` is what the last pass may take. `overrides` are guards of passes and of readiness.
    """

    xml: Path
    start: bool = False
    again: bool = False
    accelerator: str = "auto"
    overrides: frozenset[str] = frozenset()
    max_downtime: float | None = None
    shutdown_timeout: float = 120.0
    boot_timeout: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoverReport:
    """What the cutover did. `last_pass` is None when an earlier command made it. `downtime` is from the stop
    to the first check that passed (without checks, the console's pattern), in seconds; None if either is
    unknown.
    """

    last_pass: SyncReport | None
    proofs: dict[str, str]
    steps: tuple[Step, ...]
    xml: Path
    started: bool
    downtime: float | None = None
    checks: tuple[Result, ...] = ()
    notes: tuple[str, ...] = ()

    def require_serving(self, guest: str) -> None:
        """Raise `Failed` if a check did not pass."""
        failing = [f"{result.name}: {result.cause}" for result in self.checks if result.passed is None]
        if failing:
            raise Failed(
                f"guest {guest}",
                f"runs on KVM, but {'; '.join(failing)}",
                "repair it there and run the same command again, or go back with `xen2kvm rollback`",
            )


@dataclass(frozen=True, slots=True)
class _Cutover:
    """What every step needs."""

    job: Job
    source: Source
    request: CutoverRequest
    tasks: Tasks
    watch: Stopwatch
    journal: Journal
    xen: XenSide
    kvm: KvmSide | None
    asking: Asking
    overrides: frozenset[str]
    keep: Callable[[CutoverReport], None]


def run(
    job: Job,
    source: Source,
    request: CutoverRequest,
    tasks: Tasks,
    watch: Stopwatch,
    *,
    asking: Asking | None = None,
    keep: Callable[[CutoverReport], None] = lambda _: None,
) -> CutoverReport:
    """Cut over; the target is durable and the domain's XML written when this returns.

    `keep` makes the report durable: only then does the cutover count as done.
    Raises `Differences` if the target is not equal to the volumes after the last pass, `Refused` with the
    guest left on Xen when it does not stop.
    """
    journal = journals.opened(job.folder, job.plan.guest.name, job.plan.target)
    handed_over = _is_handed_over(job, journal) and not request.again
    asking = asking or Nobody()
    if request.again:
        # Before what the guest wrote is given up.
        domain_file.require_ours(request.xml, job.plan)
    if not handed_over:
        _begin(job, journal, request)
    night = journal.watched(watch)
    try:
        with night.step("check"):
            kvm = fencing.kvm_side(job.plan) if request.start else None
            xen = fencing.xen_side(job.plan, source.host)
            notes = preflight.require(
                job,
                journal.content,
                xen,
                kvm,
                xml=request.xml,
                domain=lambda: domain_xml_of(job, request.accelerator),
                handed_over=handed_over,
            )
            passes = request.overrides - preflight.GUARDS
            work = _Cutover(job, source, request, tasks, night, journal, xen, kvm, asking, passes, keep)
            if not handed_over:
                notes += _accepted(work)
        last = None if handed_over else _handed_over(work)
        return _started(work, last, notes)
    except HostLost as error:
        journal.fail(error.cause)
        way_out = f"{error.way_out}: it goes on from where it was; or go back with `xen2kvm rollback`"
        raise HostLost(error.thing, error.cause, way_out) from error
    except BlocksyncError as error:
        journal.fail(error.cause)
        raise


def _is_handed_over(job: Job, journal: Journal) -> bool:
    """Whether an earlier command of this cutover came as far as the hand-over, and not to the end."""
    content = journal.content
    return job.state().phase is Phase.HANDED_OVER and content.handed_over and content.closed is None


def _begin(job: Job, journal: Journal, request: CutoverRequest) -> None:
    ownership.begin_passes(job, again=request.again)
    journal.content = journals.opened(job.folder, job.plan.guest.name, job.plan.target).content
    if request.again or journal.content.closed is not None or journal.content.owner is Owner.KVM:
        journal.start_anew()
    journal.note(handed_over=False)


def _accepted(work: _Cutover) -> tuple[str, ...]:
    """Ask about what is known against the cutover, once; notes of it. Raises `Refused`."""
    content, guest = work.journal.content, work.job.plan.guest.name
    # Nobody waits for an answer while the guest is stopped.
    known = preflight.GUARDS if content.stopped is not None else frozenset(content.accepted)
    known |= work.request.overrides
    found = preflight.risks(work.job, work.request.max_downtime)
    if preflight.GUARDS - known:
        found += preflight.more_risks(work.job, work.xen, work.source.host, known)
    names = preflight.accepted(guest, found, known, work.asking)
    if names != content.accepted:
        work.journal.note(accepted=names)
    return tuple(f"{guest} {risk.cause}" for risk in found)


def _handed_over(work: _Cutover) -> SyncReport:
    """Everything until the target is the guest's disk."""
    job, plan = work.job, work.job.plan
    _distrust_a_guests_disk(job)
    if work.xen.runs():
        if _pass_before_the_stop(work):
            _require_fix_ups(work)
        with work.watch.step("make ready"):
            # The last pass and its proof, for each volume.
            work.source.make_ready(2 * len(plan.copied))
            preflight.require_domain(plan, work.kvm, lambda: _domain(work))
    _stop(work)
    with work.watch.step("last pass"):
        last = sync.last_pass(job, work.source, work.tasks, work.overrides, work.watch.tell)
    with work.watch.step("verify"):
        work.journal.note(proofs=sync.prove_last(job, work.source, last, work.tasks))
    domain = _domain(work)
    repair(job, work.watch)
    domain_file.write(work.request.xml, domain)
    ownership.mark_handed_over(job, work.journal)
    work.journal.note(handed_over=True)
    _enter(job, Phase.HANDED_OVER)
    # They are about a copy, which the target is no longer.
    job.forget_digests()
    return last


def _distrust_a_guests_disk(job: Job) -> None:
    """A target that a guest wrote to, or nobody knows where: back to passes, which believe nothing of it."""
    remove_leftovers(job.folder, unmount_leftovers)
    if not job.state().is_copy:
        _enter(job, Phase.FINISHING)
        job.forget_digests()
        unmount_leftovers(job.plan.target)


def _pass_before_the_stop(work: _Cutover) -> bool:
    """While the guest still serves: everything but what changes from here on, copied and proven. Whether
    there was anything to copy.

    The pass after the proof carries it on, and leaves less for the last one than the proof took.
    """
    request, copied = SyncRequest(overrides=work.overrides), work.job.state().passes
    if not work.job.state().is_proven:
        with work.watch.step("pass before the proof"):
            sync.run(work.job, work.source, request, work.tasks, work.watch.tell)
        with work.watch.step("proof before the stop"):
            sync.prove_moment(work.job, work.source, work.tasks)
    records = work.job.state().records
    if not records or time.time() - records[-1].at > _FRESH_SECONDS:
        with work.watch.step("pass before the stop"):
            sync.run(work.job, work.source, request, work.tasks, work.watch.tell)
    return work.job.state().passes > copied


def _require_fix_ups(work: _Cutover) -> None:
    """While the guest still serves: that it can be repaired as it is now. Raises `Refused`."""
    known = work.request.overrides | frozenset(work.journal.content.accepted)
    if preflight.FIX_UPS not in known:
        with work.watch.step("fix-ups on an overlay"):
            found = preflight.fix_up_risks(work.job)
            preflight.accepted(work.job.plan.guest.name, found, known, work.asking)


def _stop(work: _Cutover) -> None:
    with work.watch.step("stop"):
        if work.xen.runs():
            work.journal.note(stopped=time.time())
        work.watch.tell("waiting for the guest to shut down", work.request.shutdown_timeout)
        work.xen.stop(work.request.shutdown_timeout, work.asking)
    with work.watch.step("prove that it is stopped"):
        work.xen.require_released()


def _started(work: _Cutover, last: SyncReport | None, notes: tuple[str, ...]) -> CutoverReport:
    """The start on KVM, if it was asked for, and the end."""
    results: tuple[Result, ...] = ()
    if work.kvm is not None:
        start_on_kvm.start(work.job, work.journal, work.xen, work.kvm, domain=_domain(work), watch=work.watch)
        results, more = start_on_kvm.prove_serving(
            work.job, work.journal, work.kvm, seconds=work.request.boot_timeout, watch=work.watch
        )
        notes += more
    # LVM takes its time: not while nobody serves.
    with work.watch.step("drop snapshots"):
        sync.drop_moments(work.job, work.source)
    report = _report(work, last, results, notes)
    with work.watch.step("report"):
        work.keep(report)
    if all(result.passed is not None for result in results):
        work.journal.note(closed=Closed.DONE)
    return report


def _report(
    work: _Cutover, last: SyncReport | None, results: tuple[Result, ...], notes: tuple[str, ...]
) -> CutoverReport:
    content = work.journal.content
    downtime = (
        None if content.stopped is None or content.serving is None else content.serving - content.stopped
    )
    return CutoverReport(
        last_pass=last,
        proofs=content.proofs,
        steps=tuple(work.watch.steps),
        xml=work.request.xml,
        started=work.kvm is not None,
        downtime=downtime,
        checks=results,
        notes=notes,
    )


def _enter(job: Job, phase: Phase) -> None:
    job.remember(replace(job.state(), phase=phase, repaired=None))


def _domain(work: _Cutover) -> str:
    return domain_xml_of(work.job, work.request.accelerator)


def domain_xml_of(job: Job, accelerator: str) -> str:
    """The libvirt domain for the guest of the job's plan."""
    plan = job.plan
    return domain_xml(
        DomainSpec(
            name=plan.guest.name,
            memory_mib=plan.guest.memory_mib,
            vcpus=plan.guest.vcpus,
            disk=plan.target,
            nics=tuple(DomainNic(mac=nic.mac, bridge=nic.bridge) for nic in plan.nic),
            accel=accel.domain_type(accel.choose(accelerator)),
            arch=plan.guest.arch,
            clock=plan.guest.clock,
            uuid=fencing.kvm_side(plan).uuid,
            console_log=start_on_kvm.console_log(job),
        )
    )
