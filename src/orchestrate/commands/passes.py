"""`xen2kvm sync` and `xen2kvm precopy`."""

from typing import Annotated

import typer

from blocksync.errors import Failed
from blocksync.sizes import parse_size
from blocksync.transports.reach import Reach
from orchestrate.commands import at_work, show
from orchestrate.commands.giving_up import require_word
from orchestrate.commands.options import (
    Again,
    Bandwidth,
    JobDir,
    Json,
    LogJson,
    NoColor,
    NoSnapshots,
    Override,
    PlanFile,
    QuiesceCommand,
    UnquiesceCommand,
    Yes,
    color,
    quiescing,
    reaching,
    seconds,
    stopwatch,
)


@reaching
def sync(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    again: Again = False,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what a pass would write, and write nothing.")
    ] = False,
    bwlimit: Bandwidth = None,
    no_snapshots: NoSnapshots = False,
    quiesce: QuiesceCommand = None,
    unquiesce: UnquiesceCommand = None,
    override: Override = None,
    reach: Reach,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Make a pass: copy what changed on the guest's volumes into their partitions on the target.

    Volumes in LVM are copied from snapshots of one moment, and from the second pass on only where they may
    have changed since the one before.
    """
    from orchestrate.copying import passes as step  # noqa: PLC0415

    request = step.SyncRequest(
        again=again,
        dry_run=dry_run,
        bytes_per_second=parse_size(bwlimit) if bwlimit else None,
        overrides=frozenset(override or ()),
        snapshots=not no_snapshots,
        quiesce=quiescing(quiesce, unquiesce),
    )
    with at_work.opened(plan, job_dir, reach, log_json=log_json, color=color(no_color)) as work:
        if again and not dry_run:
            require_word(work.job, "--again", yes=yes)
        watch = stopwatch(work.display, silent=True)
        with watch.step("sync"):
            report = step.run(work.job, work.volumes, request, work.display.task, watch.tell)
    show.sync(report, dry_run=dry_run, as_json=json, color=color(no_color))


@reaching
def precopy(
    plan: PlanFile,
    *,
    max_downtime: Annotated[
        str,
        typer.Option(
            "--max-downtime", help="What the last pass may take, such as 10s or 2m.", metavar="TIME"
        ),
    ] = "10s",
    passes: Annotated[int, typer.Option("--passes", help="Passes to make at most.", min=1)] = 20,
    job_dir: JobDir = None,
    again: Again = False,
    yes: Yes = False,
    bwlimit: Bandwidth = None,
    no_snapshots: NoSnapshots = False,
    quiesce: QuiesceCommand = None,
    unquiesce: UnquiesceCommand = None,
    override: Override = None,
    reach: Reach,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Make passes while the guest runs until the last one would be short, and prove what was copied.

    Fails, and says why, when passes do not become that short.
    """
    from orchestrate.copying import live as step  # noqa: PLC0415
    from orchestrate.copying.passes import SyncRequest  # noqa: PLC0415

    limit = seconds(max_downtime)
    request = step.PrecopyRequest(
        max_downtime=limit,
        passes=passes,
        sync=SyncRequest(
            again=again,
            bytes_per_second=parse_size(bwlimit) if bwlimit else None,
            overrides=frozenset(override or ()),
            snapshots=not no_snapshots,
            quiesce=quiescing(quiesce, unquiesce),
        ),
    )
    with at_work.opened(plan, job_dir, reach, log_json=log_json, color=color(no_color)) as work:
        if again:
            require_word(work.job, "--again", yes=yes)
        watch = stopwatch(work.display, silent=True)
        with watch.step("precopy"):
            report = step.run(
                work.job, work.volumes, request, work.display.task, show.passed, tell=watch.tell
            )
    show.precopy(report, as_json=json, color=color(no_color))
    if not report.ready:
        raise Failed(
            work.job.plan.guest.name,
            f"its last pass would take more than {limit:g} s: {report.why}",
            "give it a quieter hour, a faster link, or a larger --max-downtime",
        )
