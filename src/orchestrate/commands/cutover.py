"""`xen2kvm cutover`, and the ways on and back from it: `rollback`, `finish`."""

import json as json_format
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blocksync import own_files
from blocksync.commands.outcome import outcome
from blocksync.display.display import Display
from blocksync.errors import Usage
from blocksync.transports.reach import Reach
from blocksync.voice import voice
from orchestrate.commands import at_work, results, show
from orchestrate.commands.giving_up import require_word
from orchestrate.commands.options import (
    Accel,
    Again,
    JobDir,
    Json,
    LogJson,
    NoColor,
    Override,
    PlanFile,
    Yes,
    color,
    reaching,
    seconds,
    stopwatch,
)
from orchestrate.fencing import Asking, Nobody, SideAnswer

if TYPE_CHECKING:
    from orchestrate.steps.cutover import CutoverReport

ShutdownTimeout = Annotated[
    float, typer.Option("--shutdown-timeout", help="Seconds that the guest has to shut down.")
]


@dataclass(frozen=True, slots=True)
class Operator:
    """Whoever sits at the terminal, on which `display` draws otherwise."""

    display: Display

    def accepts(self, risk: str) -> bool:
        """Ask whether to go on in spite of something."""
        with self.display.aside():
            typer.echo(risk, err=True)
            return typer.confirm("Go on all the same?", default=False, err=True)

    def when_it_stays(self, name: str, seconds: float) -> SideAnswer:
        """Ask what to do about a guest that does not shut down."""
        with self.display.aside():
            typer.echo(f"{name} still runs after {seconds:g} s.", err=True)
            said = typer.prompt("wait on, destroy it, or leave it running? [w/d/L]", default="l", err=True)
        return SideAnswer(wait_on=said.lower().startswith("w"), destroy=said.lower() in ("d", "destroy"))


def _asking(display: Display) -> Asking:
    # A question would be a plain line among those of --log-json.
    return Operator(display) if sys.stdin.isatty() and not voice.json_lines else Nobody()


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
    yes: Yes = False,
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
    So are fix-ups that fail, too little room, and volumes in use where nobody can ask Xen (fix-ups, room,
    not-stopped). Where the Xen host has no xl or xm, the guest has to be stopped before: what it writes after
    the last pass is not copied.
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
        if again:
            require_word(work.job, "--again", yes=yes)
        report = step.run(
            work.job,
            work.volumes,
            request,
            work.display.task,
            stopwatch(work.display),
            asking=_asking(work.display),
            keep=lambda report: _keep(report, work.job.folder),
        )
    show.cutover(report, work.job.plan.guest.name, as_json=json, color=color(no_color))
    report.require_serving(work.job.plan.guest.name)


def _keep(report: "CutoverReport", folder: Path) -> None:
    kept = folder / f"report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    text = json_format.dumps(show.cutover_json(report), indent=2) + "\n"
    own_files.replace(kept, text.encode(), "a report")


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
    yes: Yes = False,
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
    request = step.RollbackRequest(discard=discard, send_back=send_back, shutdown_timeout=shutdown_timeout)
    with at_work.opened(plan, job_dir, reach, log_json=log_json, color=color(no_color)) as work:
        if discard:
            require_word(work.job, "--discard", yes=yes)
        report = step.run(
            work.job,
            work.volumes,
            request,
            work.display.task,
            stopwatch(work.display),
            asking=_asking(work.display),
        )
    if json:
        show.give(results.of_rollback(report))
    elif report.started:
        typer.echo(f"{work.job.plan.guest.name} is on Xen again")
    else:
        typer.echo("no xl or xm where the volumes are: start the guest on its Xen host yourself")


@reaching
def finish(
    plan: PlanFile,
    *,
    job_dir: JobDir = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Print the commands that remove the source volumes.")
    ] = False,
    reach: Reach,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """End a migration: drop its snapshots. The source volumes stay, the job's folder keeps its reports."""
    from orchestrate.steps import finish as step  # noqa: PLC0415

    with at_work.opened(plan, job_dir, reach, log_json=log_json, color=color(no_color)) as work:
        watch = stopwatch(work.display, silent=True)
        with watch.step("finish"):
            commands = step.run(work.job, work.volumes)
    folder = str(work.job.folder)
    if outcome.as_json:
        show.give(results.FinishResult(folder=folder, removals=commands))
        return
    typer.echo(f"{work.job.plan.guest.name} stays on KVM; reports are in {shlex.quote(folder)}")
    for command in commands if mark else ():
        typer.echo(command)
