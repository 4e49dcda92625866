"""What a command holds while it works on a guest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocksync.display import Display, display
from orchestrate import job as jobs
from orchestrate import source
from orchestrate.job import Job
from orchestrate.plan import file as plan_file
from orchestrate.source import Reach, Source


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
        jobs.opened(plan_file.load(plan), job_dir) as job,
        display(json_lines=log_json, color=color) as shown,
        source.opened(job.plan.xen_host, reach, shown.aside) as volumes,
    ):
        yield AtWork(job, volumes, shown)
