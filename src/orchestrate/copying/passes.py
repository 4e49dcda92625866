"""`xen2kvm sync`: one pass over all volumes, into their places on the target."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from msgspec.structs import replace as replace_state

from blocksync.changes import Changes
from blocksync.digests import trust
from blocksync.errors import BlocksyncError
from blocksync.extents import Extents
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Report, Tell, untold
from blocksync.remote import PassPart
from orchestrate.copying import ownership, snapshot_watch, target_disk
from orchestrate.copying import snapshot_sets as moments_of
from orchestrate.copying.drift import refuse_drift
from orchestrate.copying.other_domains import refuse_other_domains
from orchestrate.copying.snapshot_sets import Moment, Moments, NoMomentError, Quiesce
from orchestrate.copying.source import Proof, Source
from orchestrate.copying.target_disk import bring_swap, bring_table
from orchestrate.guest.files.mounts import unmount_leftovers
from orchestrate.job import send_back_mark
from orchestrate.job.folder import Job, JobState, PassRecord
from orchestrate.plan.model import Volume

Tasks = Callable[[str], Report]
"""Gives each volume's pass something to report its progress to, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """How a pass is made. `again` goes back to passes after a cutover, `bytes_per_second` is a bound.

    `snapshots` copies from a moment where the volumes can have snapshots; `quiesce` is how the guest is held
    while they are made.
    """

    again: bool = False
    dry_run: bool = False
    bytes_per_second: int | None = None
    overrides: frozenset[str] = frozenset()
    snapshots: bool = True
    quiesce: Quiesce | None = None


@dataclass(frozen=True, slots=True)
class VolumePass:
    """What one volume's pass did; `only` are the candidates that it looked at, None for everything."""

    volume: Volume
    report: PassReport
    only: Extents | None = None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a pass over all volumes did; `table_written` and `swap_made` name what was new besides data.

    `moment` is the one that the target now equals, None when the volumes themselves were copied. `notes` are
    for people.
    """

    passes: tuple[VolumePass, ...]
    table_written: bool
    swap_made: tuple[str, ...]
    moment: int | None = None
    notes: tuple[str, ...] = ()

    def total(self, field: str) -> int:
        """The sum over the volumes of an integer field of the engine's report."""
        return sum(getattr(one.report, field) for one in self.passes)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is read for each volume, by the guest's device: a moment's snapshots or else the volumes; within
    the candidates where there are any, and where fix-ups wrote that have to go again.
    """

    moment: Moment | None = None
    candidates: Mapping[str, Changes] = field(default_factory=dict)
    repaired: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def source(self, volume: Volume) -> Path:
        return Path(volume.path) if self.moment is None else self.moment.path(volume.device)

    def only(self, volume: Volume) -> Extents | None:
        found = self.candidates.get(volume.device)
        if found is None or found.everything:
            return None
        return Extents.of([*found.extents.pairs(), *self.repaired.get(volume.device, ())]).coalesce()

    def why(self) -> str:
        """Why some volume is read as a whole although a list was asked for; empty where none is."""
        return "; ".join(each.why for each in self.candidates.values() if each.everything)


@dataclass(frozen=True, slots=True)
class _Work:
    """What every part of a pass is given."""

    job: Job
    source: Source
    request: SyncRequest
    tasks: Tasks
    tell: Tell = untold


def run(job: Job, source: Source, request: SyncRequest, tasks: Tasks, tell: Tell = untold) -> SyncReport:
    """Make a pass; what changed on the target is durable when this returns. `tell` is told what it is at."""
    work = _Work(job, source, request, tasks, tell)
    tell("looking at the volumes")
    send_back_mark.refuse_torn(job)
    state = _begun(job, again=request.again, dry_run=request.dry_run)
    refuse_drift(job.plan, source.host)
    refuse_other_domains(job.plan, request.overrides)
    if request.dry_run:
        return _copy(work, _Chosen())
    if not state.is_copy:
        # The target was written by a guest, or nobody knows where: believe nothing that was noted about it.
        job.forget_digests()
        unmount_leftovers(job.plan.target)
    state = _believed(job)
    moments = Moments(source.host, job.plan, request.quiesce)
    try:
        return _from_moment(work, moments, state) if request.snapshots else _from_volumes(work, state)
    except NoMomentError as none:
        report = _from_volumes(work, state)
        return replace(report, notes=(f"copied from the volumes, without snapshots: {none}", *report.notes))


def _begun(job: Job, *, again: bool, dry_run: bool) -> JobState:
    """The state of a target that passes may write to, or of any where nothing is written."""
    if again and dry_run:
        return job.state()
    return ownership.begin_passes(job, again=again)


def _believed(job: Job) -> JobState:
    """The state without what no longer holds, which is forgotten for good: an interrupted pass makes digests
    that are true of what it looked at, and the next one may not take them for more.
    """
    state = job.state()
    if state.moment is None or (state.is_copy and _is_still_known(job, state)):
        return state
    state = state.without_moment()
    job.remember(state)
    return state


def _is_still_known(job: Job, state: JobState) -> bool:
    """Whether nobody but passes wrote to the target, and the moment is one of these volumes."""
    return {volume.device for volume in job.plan.copied} == state.snapshots.keys() and all(
        trust.still_true(
            job.digests(volume), job.plan.target, offset=volume.partition.offset, size=volume.size
        )
        for volume in job.plan.copied
    )


def _moment_of(state: JobState) -> Moment | None:
    return None if state.moment is None else moments_of.remembered(state.moment, state.snapshots)


def _from_moment(work: _Work, moments: Moments, state: JobState) -> SyncReport:
    """A snapshot pass. orchestrate/copying/snapshot_sets.py argues from its order. Raises NoMomentError."""
    earlier = _moment_of(state)
    number = 1 if state.moment is None else state.moment + 1
    volumes = moments.volumes()
    moments.sweep(earlier)
    work.tell(f"making {len(volumes)} snapshots")
    moment = moments.take(number, volumes)
    began = time.monotonic()
    try:
        work.tell("listing what changed")
        candidates = {} if earlier is None else moments.candidates(earlier, moment)
        reading = _Chosen(moment, candidates, state.repaired or {})
        with snapshot_watch.watched(moments, moment) as watch:
            watched = replace(work, tasks=watch.over(work.tasks))
            report = _copy(watched, reading)
            carried = _carry_proof(watched, report, reading, state)
    except BaseException:
        # What broke first is what the user has to know; what is left is removed when the next pass begins.
        with suppress(BlocksyncError):
            moments.drop(moment)
        raise
    record = _record(report, reading, moment.at, time.monotonic() - began, work.request.bytes_per_second)
    kept = replace_state(state.with_pass(record), moment=number, snapshots=moment.kept())
    work.job.remember(replace_state(kept, proven=number if carried else None))
    if earlier is not None:
        work.tell("dropping the earlier snapshots")
        moments.drop(earlier)
    return replace(report, moment=number, notes=_notes(record, report))


def _from_volumes(work: _Work, state: JobState) -> SyncReport:
    """A pass that reads everything, from the volumes themselves.

    An earlier moment is still one: the target lacks nothing but what changed since.
    """
    at, began = time.time(), time.monotonic()
    reading = _Chosen()
    report = _copy(work, reading)
    record = _record(report, reading, at, time.monotonic() - began, work.request.bytes_per_second)
    work.job.remember(state.with_pass(record))
    return report


def last_pass(
    job: Job,
    source: Source,
    tasks: Tasks,
    overrides: frozenset[str] = frozenset(),
    tell: Tell = untold,
) -> SyncReport:
    """The pass after the guest was stopped: from the volumes themselves, only what may have changed since the
    last moment. The moment stays, for `prove_last` and for another last pass; `drop_moments` removes it.
    """
    send_back_mark.refuse_torn(job)
    ownership.require_copy(job)
    state = _believed(job)
    at, began = time.time(), time.monotonic()
    earlier = _moment_of(state)
    reading = _Chosen()
    if earlier is not None:
        tell("listing what changed")
        candidates = Moments(source.host, job.plan).candidates(earlier)
        reading = _Chosen(None, candidates, state.repaired or {})
    if earlier is None or reading.why():
        refuse_drift(job.plan, source.host)
    report = _copy(_Work(job, source, SyncRequest(overrides=overrides), tasks, tell), reading)
    record = _record(report, reading, at, time.monotonic() - began)
    job.remember(state.with_pass(record))
    return replace(report, notes=_notes(record, report))


def prove_moment(job: Job, source: Source, tasks: Tasks) -> dict[str, str]:
    """Compare the whole target with the moment that it is said to equal, while the guest runs; the proof is
    remembered, and passes carry it on. What was proven, by the guest's device; nothing where there is no
    moment. Raises `Differences`.
    """
    state = _believed(job)
    moment = _moment_of(state)
    if moment is None:
        return {}
    if state.is_proven:
        return {volume.device: f"moment {moment.number}, proven before" for volume in job.plan.copied}
    with snapshot_watch.watched(Moments(source.host, job.plan), moment) as watch:
        work = _Work(job, source, SyncRequest(), watch.over(tasks))
        proofs = _proofs(work, [(volume, moment.path(volume.device), None) for volume in job.plan.copied])
    job.remember(replace_state(state, proven=state.moment))
    return proofs


def prove_last(job: Job, source: Source, report: SyncReport, tasks: Tasks) -> dict[str, str]:
    """After `last_pass`: read back what it looked at and compare it with the volumes, or everything where the
    moment before was not proven. What was proven, by the guest's device. Raises `Differences`.
    """
    proven = _believed(job).is_proven
    work = _Work(job, source, SyncRequest(), tasks)
    return _proofs(
        work,
        [(one.volume, Path(one.volume.path), one.only if proven else None) for one in report.passes],
    )


def drop_moments(job: Job, source: Source) -> None:
    """Remove every snapshot of the job, and what the state says of them. May be called again."""
    moments = Moments(source.host, job.plan)
    state = job.state()
    job.remember(state.without_moment())
    try:
        moments.volumes()
    except NoMomentError:
        # Volumes that can have no snapshots have none left.
        return
    moments.sweep(None)


def _proofs(work: _Work, volumes: Sequence[tuple[Volume, Path, Extents | None]]) -> dict[str, str]:
    """What was proven by the guest's device, given each volume, where it is read and what of it."""
    proofs = [
        Proof(
            volume=there,
            target=work.job.plan.target,
            offset=volume.partition.offset,
            size=volume.size,
            progress=work.tasks(f"{volume.device} verify"),
            only=only,
        )
        for volume, there, only in volumes
    ]
    devices = [volume.device for volume, _, _ in volumes]
    return dict(zip(devices, work.source.prove_all(proofs), strict=True))


def _carry_proof(work: _Work, report: SyncReport, reading: _Chosen, state: JobState) -> bool:
    """Read back what this pass looked at, if the moment before was proven: then this one is, too."""
    if reading.moment is None or not state.is_proven or any(one.only is None for one in report.passes):
        return False
    moment = reading.moment
    work.tell("reading back")
    _proofs(work, [(one.volume, moment.path(one.volume.device), one.only) for one in report.passes])
    return True


def _record(
    report: SyncReport, reading: _Chosen, at: float, seconds: float, limit: int | None = None
) -> PassRecord:
    return PassRecord(
        at=at,
        seconds=seconds,
        looked_at=report.total("bytes_total"),
        read=report.total("bytes_read"),
        changed=report.total("bytes_changed"),
        written=report.total("bytes_written"),
        source="volumes" if reading.moment is None else "snapshots",
        listed=all(one.only is not None for one in report.passes),
        why=reading.why(),
        limit=limit,
    )


def _notes(record: PassRecord, report: SyncReport) -> tuple[str, ...]:
    return (*report.notes, *((f"everything was looked at: {record.why}",) if record.why else ()))


def _copy(work: _Work, reading: _Chosen) -> SyncReport:
    """Table, swap and volumes, in this order, onto the target.

    The volumes come last: a write that is no pass makes the engine compare the whole target once.
    """
    plan, request = work.job.plan, work.request
    work.tell("copying")
    table_written = bring_table(plan, dry_run=request.dry_run, overrides=request.overrides, tasks=work.tasks)
    made = tuple(
        volume.device
        for volume in plan.recreated
        if bring_swap(plan, volume, dry_run=request.dry_run, overrides=request.overrides)
    )
    return SyncReport(_passes(work, reading), table_written, made)


def _passes(work: _Work, reading: _Chosen) -> tuple[VolumePass, ...]:
    volumes = work.job.plan.copied
    wanted = [_wanted(work, volume, reading) for volume in volumes]
    reports = work.source.copy_all(_parts(work, volumes, wanted))
    # A digest file that is not believed after all: more than the candidates may differ.
    doubted = [n for n, report in enumerate(reports) if wanted[n].only is not None and report.compared_all]
    for number in doubted:
        wanted[number] = replace(wanted[number], only=None)
    again = _parts(work, [volumes[n] for n in doubted], [wanted[n] for n in doubted])
    for number, report in zip(doubted, work.source.copy_all(again), strict=True):
        reports[number] = report
    return tuple(
        VolumePass(volume, report, request.only)
        for volume, report, request in zip(volumes, reports, wanted, strict=True)
    )


def _parts(work: _Work, volumes: Sequence[Volume], requests: Sequence[PassRequest]) -> list[PassPart]:
    return [
        PassPart(request, work.tasks(volume.device))
        for volume, request in zip(volumes, requests, strict=True)
    ]


def _wanted(work: _Work, volume: Volume, reading: _Chosen) -> PassRequest:
    job, request = work.job, work.request
    return PassRequest(
        source=reading.source(volume),
        origin=None if reading.moment is None else Path(volume.path),
        target=job.plan.target,
        target_offset=volume.partition.offset,
        size=volume.size,
        digests=job.digests(volume),
        only=reading.only(volume),
        dry_run=request.dry_run,
        bytes_per_second=request.bytes_per_second,
        overrides=request.overrides - target_disk.GUARDS,
    )
