"""`xen2kvm cutover`."""

from pathlib import Path
from typing import Annotated

import typer

from blocksync import progress
from orchestrate import job, show, source
from orchestrate.commands.options import (
    Accel,
    Again,
    Fingerprint,
    JobDir,
    Json,
    LogJson,
    NoColor,
    Override,
    PlanFile,
    Transport,
    color,
    stopwatch,
)
from orchestrate.plan import file as plan_file
from orchestrate.source import Reach


def cutover(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    xml: Annotated[
        Path | None, typer.Option("--xml", help="Where the domain's XML goes. Default: beside the plan.")
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Define the domain in libvirt and start it.")
    ] = False,
    again: Again = False,
    accel: Accel = "auto",
    override: Override = None,
    transport: Transport = "auto",
    host_key_fingerprint: Fingerprint = None,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Make the last pass, prove it, repair the guest on the target and write its libvirt domain.

    The guest has to be stopped on Xen before: what it writes after the last pass is not copied.
    """
    from orchestrate.steps import cutover as step  # noqa: PLC0415

    request = step.CutoverRequest(
        xml=xml or plan.with_suffix(".xml"),
        start=start,
        again=again,
        accelerator=accel,
        overrides=frozenset(override or ()),
    )
    reach = Reach(transport=transport, host_key_fingerprint=host_key_fingerprint)
    with (
        job.opened(plan_file.load(plan), job_dir) as opened,
        source.opened(opened.plan.xen_host, reach) as volumes,
        progress.display(json_lines=log_json, color=color(no_color)) as display,
    ):
        report = step.run(opened, volumes, request, display.task, stopwatch(color=color(no_color)))
    show.cutover(report, opened.plan.guest.name, as_json=json, color=color(no_color))
