"""`xen2kvm rehearse`."""

from typing import Annotated

import typer

from orchestrate import job, show
from orchestrate.commands.options import Accel, JobDir, Json, NoColor, PlanFile, color, stopwatch
from orchestrate.plan import file as plan_file


def rehearse(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    expect: Annotated[
        str | None,
        typer.Option("--expect", help="What the console shows when the guest is up (a regular expression)."),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for it.")] = 300.0,
    accel: Accel = "auto",
    json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Boot the copied guest on an overlay, without a network; the target's bytes stay as they are."""
    from orchestrate.steps import rehearse as step  # noqa: PLC0415

    request = step.RehearseRequest(timeout=timeout, expect=expect, accelerator=accel)
    with job.opened(plan_file.load(plan), job_dir) as opened:
        rehearsal = step.run(opened, request, stopwatch(color=color(no_color)))
    show.rehearsal(rehearsal, as_json=json, color=color(no_color))
