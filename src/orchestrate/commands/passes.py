"""`xen2kvm sync`."""

from typing import Annotated

import typer

from blocksync import progress
from blocksync.sizes import parse_size
from orchestrate import job, show, source
from orchestrate.commands.options import (
    Again,
    Fingerprint,
    JobDir,
    Json,
    LogJson,
    NoColor,
    NoSnapshots,
    Override,
    PlanFile,
    QuiesceCommand,
    Transport,
    UnquiesceCommand,
    color,
    quiescing,
)
from orchestrate.plan import file as plan_file
from orchestrate.source import Reach


def sync(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    again: Again = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what a pass would write, and write nothing.")
    ] = False,
    bwlimit: Annotated[
        str | None, typer.Option("--bwlimit", help="Bytes a second at most, such as 40MiB.", metavar="RATE")
    ] = None,
    no_snapshots: NoSnapshots = False,
    quiesce: QuiesceCommand = None,
    unquiesce: UnquiesceCommand = None,
    override: Override = None,
    transport: Transport = "auto",
    host_key_fingerprint: Fingerprint = None,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Make a pass: copy what changed on the guest's volumes into their partitions on the target.

    Volumes in LVM are copied from snapshots of one moment, and from the second pass on only where they may
    have changed since the one before.
    """
    from orchestrate.steps import sync as step  # noqa: PLC0415

    request = step.SyncRequest(
        again=again,
        dry_run=dry_run,
        bytes_per_second=parse_size(bwlimit) if bwlimit else None,
        overrides=frozenset(override or ()),
        snapshots=not no_snapshots,
        quiesce=quiescing(quiesce, unquiesce),
    )
    reach = Reach(transport=transport, host_key_fingerprint=host_key_fingerprint)
    with (
        job.opened(plan_file.load(plan), job_dir) as opened,
        source.opened(opened.plan.xen_host, reach) as volumes,
        progress.display(json_lines=log_json, color=color(no_color)) as display,
    ):
        report = step.run(opened, volumes, request, display.task)
    show.sync(report, dry_run=dry_run, as_json=json, color=color(no_color))
