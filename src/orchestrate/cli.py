"""The command `xen2kvm`."""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

import blocksync.cli
from blocksync import locations, progress
from blocksync.errors import Interrupted, Usage
from blocksync.sizes import parse_size
from blocksync.transports.choice import Kind
from orchestrate import job, show, source
from orchestrate.layout.table import TableKind
from orchestrate.plan import file as plan_file
from orchestrate.source import Reach
from orchestrate.stopwatch import Stopwatch

app = typer.Typer(
    name="xen2kvm",
    help="Move paravirtual Xen guests to KVM: their volumes become one disk that boots by itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

PlanFile = Annotated[Path, typer.Argument(help="The plan, as `xen2kvm plan` wrote it.", metavar="GUEST.toml")]
JobDir = Annotated[
    Path | None,
    typer.Option("--job-dir", help="Where the job's state is kept. Default: /var/lib/xen2kvm/GUEST."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours; the variable NO_COLOR does the same.")]
Override = Annotated[
    list[str] | None,
    typer.Option("--override", help="Pass the guard of this name. Repeatable.", metavar="GUARD"),
]
Accel = Annotated[str, typer.Option("--accel", help="auto, kvm or tcg; XEN2KVM_ACCEL wins over it.")]
Transport = Annotated[
    Kind, typer.Option("--transport", help="How a far Xen host is reached: auto, openssh, paramiko or tls.")
]
Fingerprint = Annotated[
    str | None,
    typer.Option(
        "--host-key-fingerprint", help="SHA256:... of the far host's key, where known_hosts lacks it."
    ),
]
Again = Annotated[
    bool, typer.Option("--again", help="Go back to passes after a cutover, re-reading the target.")
]


@app.command()
def plan(
    config: Annotated[
        str,
        typer.Argument(
            help="The guest's xm or xl configuration: a file here, or ssh://[user@]host[:port]/etc/xen/GUEST.cfg.",
            metavar="GUEST.cfg",
        ),
    ],
    *,
    disk: Annotated[Path, typer.Option("--disk", help="The target: a block device, or a file to be made.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The plan to write.")],
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume", help="Where a configured device is found here. Repeatable.", metavar="DEVICE=PATH"
        ),
    ] = None,
    table: Annotated[
        TableKind | None, typer.Option("--table", help="Partition table. Default: mbr where it suffices.")
    ] = None,
    first_sector: Annotated[
        int, typer.Option("--first-sector", help="Where the first partition starts: 2048, 63 or 32.")
    ] = 2048,
    root: Annotated[
        str | None, typer.Option("--root", help="The root device, if the configuration does not say.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing plan.")] = False,
    override: Override = None,
    transport: Transport = "auto",
    host_key_fingerprint: Fingerprint = None,
    json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Read a guest's configuration, probe its volumes and write the plan of its migration."""
    from orchestrate.steps import plan as step  # noqa: PLC0415

    if output.exists() and not force:
        raise Usage(output, "exists already", "name another -o, or replace it with --force")
    request = step.PlanRequest(
        config=locations.parse(config),
        disk=disk,
        mapped=dict(_mapping(pair) for pair in volume or ()),
        table=table,
        first_sector=first_sector,
        root=root,
        reach=Reach(transport=transport, host_key_fingerprint=host_key_fingerprint),
        overrides=frozenset(override or ()),
    )
    planned = step.run(request)
    plan_file.write(output, plan_file.dump(planned.plan, planned.warnings))
    show.plan(planned.plan, planned.warnings, output, as_json=json, color=_color(no_color))


def _mapping(pair: str) -> tuple[str, Path]:
    device, equals, path = pair.partition("=")
    if not (device and equals and path):
        raise Usage(
            f"--volume {pair}", "is not DEVICE=PATH", "e.g. --volume /dev/vg0/guest-root=/srv/root.img"
        )
    return device, Path(path)


@app.command()
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
    override: Override = None,
    transport: Transport = "auto",
    host_key_fingerprint: Fingerprint = None,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Make a pass: copy what changed on the guest's volumes into their partitions on the target."""
    from orchestrate.steps import sync as step  # noqa: PLC0415

    request = step.SyncRequest(
        again=again,
        dry_run=dry_run,
        bytes_per_second=parse_size(bwlimit) if bwlimit else None,
        overrides=frozenset(override or ()),
    )
    reach = Reach(transport=transport, host_key_fingerprint=host_key_fingerprint)
    with (
        job.opened(plan_file.load(plan), job_dir) as opened,
        source.opened(opened.plan.xen_host, reach) as volumes,
        progress.display(json_lines=log_json, color=_color(no_color)) as display,
    ):
        report = step.run(opened, volumes, request, display.task)
    show.sync(report, dry_run=dry_run, as_json=json, color=_color(no_color))


@app.command()
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
        rehearsal = step.run(opened, request, _stopwatch(color=_color(no_color)))
    show.rehearsal(rehearsal, as_json=json, color=_color(no_color))


@app.command()
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
        progress.display(json_lines=log_json, color=_color(no_color)) as display,
    ):
        report = step.run(opened, volumes, request, display.task, _stopwatch(color=_color(no_color)))
    show.cutover(report, opened.plan.guest.name, as_json=json, color=_color(no_color))


def _color(no_color: bool) -> bool:
    return not (no_color or os.environ.get("NO_COLOR"))


def _stopwatch(*, color: bool) -> Stopwatch:
    return Stopwatch(ends=lambda step: show.step(step, color=color))


def main() -> None:
    """Entry point: every error becomes one message and its exit code."""
    # A closed session or a service manager's stop unwinds like Ctrl-C: mounts and overlays are put away.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    sys.exit(blocksync.cli.run(_app_that_says_how_to_go_on))


def _app_that_says_how_to_go_on() -> object:
    try:
        return app()
    except (Interrupted, KeyboardInterrupt) as stopped:
        cause = stopped.cause if isinstance(stopped, Interrupted) else "was interrupted"
        thing = stopped.thing if isinstance(stopped, Interrupted) else "xen2kvm"
        raise Interrupted(thing, cause, f"go on with: {shlex.join(['xen2kvm', *sys.argv[1:]])}") from stopped
