"""`xen2kvm cutover`, and the ways on and back from it: `rollback`, `finish`."""

import json as json_format
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blocksync.errors import Usage
from blocksync.outcome import outcome
from blocksync.voice import voice
from orchestrate import results, show, source
from orchestrate.commands import at_work
from orchestrate.commands.options import (
    Accel,
    Again,
    JobDir,
    Json,
    LogJson,
    NoColor,
    Override,
    PlanFile,
    color,
    reaching,
    seconds,
    stopwatch,
)
from orchestrate.plan import file as plan_file
from orchestrate.sides import Answer, Asking, Nobody
from orchestrate.source import Reach

if TYPE_CHECKING:
    from orchestrate.steps.cutover import CutoverReport

ShutdownTimeout = Annotated[
    float, typer.Option("--shutdown-timeout", help="Seconds that the guest has to shut down.")
]


class Operator:
    """Whoever sits at the terminal."""

    def accepts(self, risk: str) -> bool:
        """Ask whether to go on in spite of something."""
        typer.echo(risk, err=True)
        return typer.confirm("Go on all the same?", default=False, err=True)

    def when_it_stays(self, name: str, seconds: float) -> Answer:
        """Ask what to do about a guest that does not shut down."""
        typer.echo(f"{name} still runs after {seconds:g} s.", err=True)
        said = typer.prompt("wait on, destroy it, or leave it running? [w/d/L]", default="l", err=True)
        return Answer(wait_on=said.lower().startswith("w"), destroy=said.lower() in ("d", "destroy"))


def _asking() -> Asking:
    # A question would be a plain line among those of --log-json.
    return Operator() if sys.stdin.isatty() and not voice.json_lines else Nobody()


@reaching
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
    shutdown_timeout: ShutdownTimeout = 120.0,
    boot_timeout: Annotated[
        float, typer.Option("--boot-timeout", help="Seconds until its console has to say that it is up.")
    ] = 300.0,
    max_downtime: Annotated[
        str | None,
        typer.Option(
            "--max-downtime",
            help="What the last pass may take, such as 10s; a longer outlook is a reason to ask.",
            metavar="TIME",
        ),
    ] = None,
    accel: Accel = "auto",
    override: Override = None,
    reach: Reach,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Stop the guest on Xen, make the last pass, prove it, repair the guest on the target, start it on KVM.

    The same command goes on after an interruption. A guest that was never rehearsed, or whose passes do not
    converge, is a reason to ask; without a terminal it is refused (--override not-rehearsed, not-converging).
    Where the Xen host has no xl or xm, the guest has to be stopped before: what it writes after the last pass
    is not copied.
    """
    from orchestrate.steps import cutover as step  # noqa: PLC0415

    request = step.CutoverRequest(
        xml=xml or plan.with_suffix(".xml"),
        start=start,
        again=again,
        accelerator=accel,
        overrides=frozenset(override or ()),
        max_downtime=None if max_downtime is None else seconds(max_downtime),
        shutdown_timeout=shutdown_timeout,
        boot_timeout=boot_timeout,
    )
    with at_work.opened(plan, job_dir, reach, log_json=log_json, color=color(no_color)) as work:
        report = step.run(
            work.job,
            work.volumes,
            request,
            work.tasks,
            stopwatch(color=color(no_color)),
            asking=_asking(),
            keep=lambda report: _keep(report, work.job.folder),
        )
    show.cutover(report, work.job.plan.guest.name, as_json=json, color=color(no_color))
    report.require_serving(work.job.plan.guest.name)


def _keep(report: "CutoverReport", folder: Path) -> None:
    kept = folder / f"report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    plan_file.write(kept, json_format.dumps(show.cutover_json(report), indent=2) + "\n")


@reaching
def rollback(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up what the guest wrote on KVM; asks before.")
    ] = False,
    send_back: Annotated[
        bool, typer.Option("--send-back", help="Write what the guest wrote on KVM into its Xen volumes.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Discard without a question.")] = False,
    shutdown_timeout: ShutdownTimeout = 120.0,
    reach: Reach,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Bring the guest back to Xen, from any step of its cutover.

    If it may have run on KVM since, say with --discard or --send-back what becomes of its writes there.
    """
    from orchestrate.steps import rollback as step  # noqa: PLC0415

    if discard and send_back:
        raise Usage("--discard and --send-back", "exclude each other", "choose one")
    if discard and not yes:
        _confirm_discard(plan)
    request = step.RollbackRequest(discard=discard, send_back=send_back, shutdown_timeout=shutdown_timeout)
    with at_work.opened(plan, job_dir, reach, log_json=log_json, color=color(no_color)) as work:
        report = step.run(
            work.job, work.volumes, request, work.tasks, stopwatch(color=color(no_color)), asking=_asking()
        )
    if json:
        show.give(results.of_rollback(report))
    elif report.started:
        typer.echo(f"{work.job.plan.guest.name} is on Xen again")
    else:
        typer.echo("no xl or xm where the volumes are: start the guest on its Xen host yourself")


def _confirm_discard(plan: Path) -> None:
    if not sys.stdin.isatty():
        raise Usage("--discard", "asks before it gives up data, and there is no terminal", "add --yes")
    typer.confirm(f"Give up all that the guest of {plan} wrote on KVM?", abort=True, err=True)


@reaching
def finish(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Print the commands that remove the source volumes.")
    ] = False,
    reach: Reach,
) -> None:
    """End a migration: drop its snapshots. The source volumes stay, the job's folder keeps its reports."""
    from orchestrate.steps import finish as step  # noqa: PLC0415

    with (
        at_work.held(plan, job_dir) as opened,
        source.opened(opened.plan.xen_host, reach) as volumes,
    ):
        commands = step.run(opened, volumes)
    if outcome.as_json:
        show.give(results.FinishResult(folder=str(opened.folder), removals=commands))
        return
    typer.echo(f"{opened.plan.guest.name} stays on KVM; reports are in {shlex.quote(str(opened.folder))}")
    for command in commands if mark else ():
        typer.echo(command)
