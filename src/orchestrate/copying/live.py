"""`xen2kvm precopy`: passes from the running guest, until little is left for the last one.

A comparison of the whole target takes as long as reading it, and the guest goes on meanwhile: so it comes
once the passes are short, and the passes after it carry its proof on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from blocksync.progress import Tell, untold
from orchestrate.copying import forecast
from orchestrate.copying import passes as sync
from orchestrate.copying.forecast import Forecast
from orchestrate.copying.passes import SyncReport, SyncRequest, Tasks
from orchestrate.copying.source import Source
from orchestrate.job.folder import Job

FEWEST = 4
"""Passes before a forecast may say that they do not converge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecopyRequest:
    """Until the last pass would take less than `max_downtime` seconds, at most `passes` of them."""

    max_downtime: float
    passes: int
    sync: SyncRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecopyReport:
    """`ready` says that the last pass would be short enough; `predicted` is its time in seconds, None when
    nothing is known; `why` says why it is not ready. `proofs` are of the whole moment, by the guest's device.
    """

    passes: int
    forecast: Forecast | None
    predicted: float | None
    ready: bool
    why: str
    proofs: dict[str, str]


@dataclass(frozen=True, slots=True)
class Passed:
    """A pass that was made, and what its successor would take."""

    number: int
    report: SyncReport
    predicted: float | None


def run(
    job: Job,
    source: Source,
    request: PrecopyRequest,
    tasks: Tasks,
    passed: Callable[[Passed], None],
    *,
    tell: Tell = untold,
) -> PrecopyReport:
    """Make passes until they are short enough, prove the moment, and bring it up to now.

    Each pass may be interrupted; the same command goes on with what is left.
    """
    proofs: dict[str, str] = {}
    found: Forecast | None = None
    for number in range(1, request.passes + 1):
        passed(_passed(job, source, request, tasks, number, tell=tell))
        found = forecast.of(job.state().records)
        if found is None:
            continue
        if number >= FEWEST and not found.converges(request.max_downtime):
            return _report(job, number, found, proofs, found.why_not(request.max_downtime))
        if found.seconds(_gap(job)) > request.max_downtime:
            continue
        if proofs or not job.state().snapshots:
            return _report(job, number, found, proofs, "")
        tell("proving the moment")
        proofs = sync.prove_moment(job, source, tasks)
    short = found is not None and found.seconds(_gap(job)) <= request.max_downtime
    why = "" if short and proofs else f"{request.passes} passes did not suffice"
    return _report(job, request.passes, found, proofs, why)


def predicted(job: Job) -> float | None:
    """What the last pass would take, in seconds, if the guest stopped as long after its moment as the latest
    pass took; None when nothing is known.
    """
    found = forecast.of(job.state().records)
    return None if found is None else found.seconds(_gap(job))


def _passed(
    job: Job, source: Source, request: PrecopyRequest, tasks: Tasks, number: int, *, tell: Tell
) -> Passed:
    def at(text: str, of: float | None = None) -> None:
        tell(f"pass {number}: {text}", of)

    report = sync.run(job, source, request.sync, tasks, at)
    return Passed(number, report, predicted(job))


def _gap(job: Job) -> float:
    """Seconds between the moment of the next pass and the latest one's, if it begins now."""
    return max(0.0, time.time() - job.state().records[-1].at)


def _report(job: Job, passes: int, found: Forecast | None, proofs: dict[str, str], why: str) -> PrecopyReport:
    return PrecopyReport(
        passes=passes,
        forecast=found,
        predicted=predicted(job),
        ready=not why,
        why=why,
        proofs=proofs,
    )
