"""What a command holds while it works on a guest."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocksync.commands.outcome import outcome
from blocksync.display.display import Display, display
from blocksync.transports.reach import Reach
from blocksync.voice import voice
from orchestrate.copying import source
from orchestrate.copying.source import Source
from orchestrate.job import folder as jobs
from orchestrate.job import invocation
from orchestrate.job.folder import Job
from orchestrate.job.log import JobLog
from orchestrate.plan import file as plan_file


@dataclass(frozen=True, slots=True)
class AtWork:
    """The job, locked; the guest's volumes; and what shows how far passes and steps are."""

    job: Job
    volumes: Source
    display: Display


@contextmanager
def opened(
    plan: Path, job_dir: Path | None, reach: Reach, *, log_json: bool, color: bool
) -> Iterator[AtWork]:
    """All that is needed for the guest of a plan's file, until the block ends."""
    with (
        held(plan, job_dir) as job,
        display(json_lines=log_json, color=color, quiet=voice.quiet) as shown,
        source.opened(job.plan.xen_host, reach, shown.aside) as volumes,
    ):
        yield AtWork(job, volumes, shown)


@contextmanager
def held(plan: Path, job_dir: Path | None) -> Iterator[Job]:
    """The job of a plan's file, locked until the block ends; its log is open until the process ends."""
    loaded = plan_file.load(plan)
    outcome.about(loaded.guest.name, loaded.disk.path)
    with jobs.opened(loaded, job_dir) as job:
        voice.log = JobLog(job.folder)
        voice.record("begin", shlex.join([outcome.program, *outcome.words]))
        invocation.remember(job.folder, plan, outcome.words)
        yield job
