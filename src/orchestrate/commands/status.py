"""`xen2kvm status`."""

from pathlib import Path
from typing import Annotated

import typer

from blocksync.commands.outcome import outcome
from blocksync.errors import Failed
from blocksync.voice import voice
from orchestrate.commands import show_status
from orchestrate.commands.options import Json, NoColor, color
from orchestrate.job.folder import DEFAULT_FOLDER
from orchestrate.steps import status as step
from orchestrate.steps.status import JobStatus


def _jobs(incomplete: str) -> list[str]:
    try:
        folders = sorted(DEFAULT_FOLDER.iterdir())
    except OSError:
        return []
    return [each.name for each in folders if each.name.startswith(incomplete) and step.is_job(each)]


def status(
    plan: Annotated[
        str | None,
        typer.Argument(
            help="The plan, or the name of a job; all jobs if left out.",
            metavar="GUEST.toml|JOB",
            autocompletion=_jobs,
        ),
    ] = None,
    *,
    job_dir: Annotated[
        Path | None,
        typer.Option(
            "--job-dir",
            help="Where the job's state is kept, or without a plan the folder with all jobs. "
            "Default: /var/lib/xen2kvm/GUEST, and /var/lib/xen2kvm.",
        ),
    ] = None,
    json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Say where a guest's migration stands, or that of every guest. Changes nothing, and may run beside every
    other command.

    Three lines: where the guest is; what is proven and rehearsed; the next command. -v adds the passes and
    the steps of a cutover that is not over, -vv those of one that is. Without a plan or a name: a row for
    each job, the most urgent first. A file of the job that cannot be read is named; the exit code is 1 then.
    """
    if plan is None and not (job_dir is not None and step.is_job(job_dir)):
        found = step.all_below(job_dir or DEFAULT_FOLDER)
        show_status.table(found, job_dir or DEFAULT_FOLDER, as_json=json)
    else:
        found = (_one(plan, job_dir),)
        one = found[0].found
        outcome.about(one.guest, one.target)
        show_status.lines(found[0], as_json=json, verbosity=voice.verbosity, color=color(no_color))
    _require_whole(found)


def _one(plan: str | None, job_dir: Path | None) -> JobStatus:
    if plan is None and job_dir is not None:
        return step.of_folder(job_dir)
    named = DEFAULT_FOLDER / str(plan)
    is_name = "/" not in str(plan) and not Path(str(plan)).exists()
    if is_name and job_dir is not None and step.is_job(job_dir / str(plan)):
        return step.of_folder(job_dir / str(plan))
    if is_name and job_dir is None and step.is_job(named):
        return step.of_folder(named)
    return step.of_plan(Path(str(plan)), job_dir)


def _require_whole(found: tuple[JobStatus, ...]) -> None:
    for each in found:
        for broken in each.found.broken:
            raise Failed(f"job {each.found.guest}", str(broken), broken.way_out)
