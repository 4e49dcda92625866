"""What the commands print with --json: one struct a command. The schemas are made from these.

Sizes are in bytes, times in seconds. Fields may be added; what is here keeps its name and its meaning.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrate.job.journal import Content
from orchestrate.job.stopwatch import Step as WatchedStep
from orchestrate.plan.model import Plan

if TYPE_CHECKING:
    from orchestrate.copying.forecast import Forecast as ForecastOfPasses
    from orchestrate.copying.live import PrecopyReport
    from orchestrate.copying.passes import SyncReport
    from orchestrate.guest.prepare.script import Line
    from orchestrate.steps.cutover import CutoverReport
    from orchestrate.steps.prepare import Rebooted
    from orchestrate.steps.rehearse import Rehearsal
    from orchestrate.steps.rollback import RollbackReport


class _MigrationResult(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the results and their parts."""


class Figures(_MigrationResult, frozen=True, kw_only=True):
    """What a pass did. `bytes_to_write` is what a dry run says that a pass would write, at most."""

    bytes_total: int
    bytes_read: int
    bytes_changed: int
    bytes_written: int
    bytes_to_write: int
    extents_written: int
    seconds: float


class VolumesSyncResult(Figures, frozen=True, kw_only=True):
    """A pass: the sums over all volumes, then each volume by the guest's device. `moment` numbers what the
    target now equals; null where the volumes themselves were copied.
    """

    moment: int | None
    dry_run: bool
    table_written: bool
    swap_made: tuple[str, ...]
    volumes: dict[str, Figures]
    notes: tuple[str, ...] = ()


class ForecastResult(_MigrationResult, frozen=True, kw_only=True):
    """The rates of the latest passes, in bytes a second; `fixed` is what a pass takes besides, `shortest`
    the pass that they come down to, null where they do not.
    """

    dirty_rate: float
    transfer_rate: float
    fixed: float
    shortest: float | None


class PrecopyResult(_MigrationResult, frozen=True, kw_only=True):
    """Whether the guest is ready for its cutover, else why not; `predicted` is what its last pass would take;
    `proofs` what was proven, by the guest's device.
    """

    passes: int
    ready: bool
    why: str
    predicted: float | None
    forecast: ForecastResult | None
    proofs: dict[str, str]


class StepResult(_MigrationResult, frozen=True, kw_only=True):
    """A step that was done."""

    name: str
    seconds: float


class RehearsalResult(_MigrationResult, frozen=True, kw_only=True):
    """The guest came up: what its console said, and the file with all that it said."""

    seen: str
    steps: tuple[StepResult, ...]
    console: str


class CheckResult(_MigrationResult, frozen=True, kw_only=True):
    """Whether a check of the plan passed, else why not."""

    name: str
    passed: bool
    cause: str


class CutoverResult(_MigrationResult, frozen=True, kw_only=True):
    """A cutover; the job keeps the same as report-TIME.json. `last_pass` is null when an earlier command made
    it; `downtime` when the guest's stop or its first sign of life is not known.
    """

    last_pass: VolumesSyncResult | None
    proofs: dict[str, str]
    steps: tuple[StepResult, ...]
    xml: str
    started: bool
    downtime: float | None
    checks: tuple[CheckResult, ...]
    notes: tuple[str, ...]


class RollbackResult(_MigrationResult, frozen=True, kw_only=True):
    """The guest is on Xen; `started` by this command. `restored` are files whose fix-ups were undone."""

    started: bool
    proofs: dict[str, str]
    restored: tuple[str, ...]
    steps: tuple[StepResult, ...]


class FinishResult(_MigrationResult, frozen=True, kw_only=True):
    """The job's folder, and the commands that remove the source volumes; they were not run."""

    folder: str
    removals: tuple[str, ...]


class PlanResult(_MigrationResult, frozen=True, kw_only=True):
    """The plan, where it was written (`-`: standard output; null: nowhere, a dry run), and warnings."""

    plan: Plan
    warnings: tuple[str, ...]
    output: str | None


class PreparedLine(_MigrationResult, frozen=True, kw_only=True):
    """A line of the script in the guest."""

    kind: str
    text: str


class Reboot(_MigrationResult, frozen=True, kw_only=True):
    """A reboot under Xen that went well."""

    kernel: str
    seconds: float


class PrepareResult(_MigrationResult, frozen=True, kw_only=True):
    """What was done inside a guest, or with --print the script."""

    dry_run: bool
    lines: tuple[PreparedLine, ...]
    reboot: Reboot | None
    script: str | None = None


class StatusResult(_MigrationResult, frozen=True, kw_only=True):
    """Where a migration stands. `lines` are the three for people, `next` the command that the last of them
    names; `broken` what is wrong with the job's files; `holder` the process that holds the job. The fields
    of state.json follow, unless it is broken.
    """

    lines: tuple[str, ...]
    situation: str
    next: str | None
    broken: tuple[str, ...]
    holder: int | None
    predicted: float | None
    forecast: ForecastResult | None
    journal: Content | None


class JobRow(_MigrationResult, frozen=True, kw_only=True):
    """A job of a list."""

    guest: str
    folder: str
    lines: tuple[str, ...]
    situation: str
    next: str | None
    broken: tuple[str, ...]


class JobsResult(_MigrationResult, frozen=True, kw_only=True):
    """All jobs below a folder, the most urgent first."""

    jobs: tuple[JobRow, ...]


class SchemaResult(_MigrationResult, frozen=True, kw_only=True):
    """The names of all schemas, or one of them."""

    names: tuple[str, ...] = ()
    content: dict[str, Any] | None = None


def of_sync(report: "SyncReport") -> VolumesSyncResult:
    """A pass over all volumes."""
    return VolumesSyncResult(
        **{field: report.total(field) for field in Figures.__struct_fields__ if field != "seconds"},
        seconds=sum(one.report.seconds for one in report.passes),
        moment=report.moment,
        dry_run=any(one.report.dry_run for one in report.passes),
        table_written=report.table_written,
        swap_made=report.swap_made,
        volumes={
            one.volume.device: Figures(
                **{field: getattr(one.report, field) for field in Figures.__struct_fields__}
            )
            for one in report.passes
        },
        notes=report.notes,
    )


def of_precopy(report: "PrecopyReport") -> PrecopyResult:
    """A pre-copy."""
    return PrecopyResult(
        passes=report.passes,
        ready=report.ready,
        why=report.why,
        predicted=report.predicted,
        forecast=of_forecast(report.forecast),
        proofs=report.proofs,
    )


def of_forecast(found: "ForecastOfPasses | None") -> ForecastResult | None:
    """A forecast."""
    if found is None:
        return None
    return ForecastResult(
        dirty_rate=found.dirty_rate,
        transfer_rate=found.transfer_rate,
        fixed=found.fixed,
        shortest=found.shortest,
    )


def of_rehearsal(rehearsal: "Rehearsal") -> RehearsalResult:
    """A rehearsal."""
    return RehearsalResult(seen=rehearsal.seen, steps=_steps(rehearsal.steps), console=str(rehearsal.console))


def of_cutover(report: "CutoverReport") -> CutoverResult:
    """A cutover."""
    return CutoverResult(
        last_pass=None if report.last_pass is None else of_sync(report.last_pass),
        proofs=report.proofs,
        steps=_steps(report.steps),
        xml=str(report.xml),
        started=report.started,
        downtime=None if report.downtime is None else round(report.downtime, 3),
        checks=tuple(
            CheckResult(name=result.name, passed=result.passed is not None, cause=result.cause)
            for result in report.checks
        ),
        notes=report.notes,
    )


def of_rollback(report: "RollbackReport") -> RollbackResult:
    """A rollback."""
    gave_back = report.gave_back
    return RollbackResult(
        started=report.started,
        proofs=gave_back.proofs if gave_back else {},
        restored=gave_back.restored if gave_back else (),
        steps=_steps(report.steps),
    )


def of_plan(plan: Plan, warnings: tuple[str, ...], output: Path | None) -> PlanResult:
    """A plan that was made."""
    return PlanResult(plan=plan, warnings=warnings, output=None if output is None else str(output))


def of_prepare(*, dry_run: bool, lines: "tuple[Line, ...]", rebooted: "Rebooted | None") -> PrepareResult:
    """A guest that was prepared."""
    return PrepareResult(
        dry_run=dry_run,
        lines=tuple(PreparedLine(kind=line.kind, text=line.text) for line in lines),
        reboot=None if rebooted is None else Reboot(**asdict(rebooted)),
    )


def _steps(steps: tuple[WatchedStep, ...]) -> tuple[StepResult, ...]:
    return tuple(StepResult(name=step.name, seconds=round(step.seconds, 3)) for step in steps)
