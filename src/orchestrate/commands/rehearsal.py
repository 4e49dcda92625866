"""`xen2kvm rehearse`."""

from typing import Annotated

import typer

from blocksync.display.display import display
from blocksync.voice import voice
from orchestrate.commands import at_work, show
from orchestrate.commands.options import Accel, JobDir, Json, LogJson, NoColor, PlanFile, color, stopwatch


def rehearse(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    expect: Annotated[
        str | None,
        typer.Option("--expect", help="What the console shows when the guest is up (a regular expression)."),
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            "--network",
            metavar="none|cut|BRIDGE",
            help="No network card; the guest's cards with nothing behind them; or on a bridge of this host "
            "that leads nowhere, where you may look at what it serves.",
        ),
    ] = "none",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for it.")] = 300.0,
    accel: Accel = "auto",
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Boot the copied guest on an overlay, away from the network; the target's bytes stay as they are."""
    from orchestrate.steps import rehearse as step  # noqa: PLC0415

    request = step.RehearseRequest(timeout=timeout, expect=expect, accelerator=accel, network=network)
    with (
        at_work.held(plan, job_dir) as opened,
        display(json_lines=log_json, color=color(no_color), quiet=voice.quiet) as shown,
    ):
        rehearsal = step.run(opened, request, stopwatch(shown))
    show.rehearsal(rehearsal, as_json=json, color=color(no_color))
