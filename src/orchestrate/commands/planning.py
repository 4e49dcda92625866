"""`xen2kvm plan`, and `xen2kvm prepare`, which comes before it."""

import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from blocksync import locations
from blocksync.commands.outcome import outcome
from blocksync.devices.identity import is_same
from blocksync.display.display import Display, display
from blocksync.errors import Usage
from blocksync.transports.interface import Transport
from blocksync.transports.reach import Reach
from blocksync.voice import voice
from orchestrate.commands import results, show
from orchestrate.commands.options import Json, LogJson, NoColor, Override, color, reaching, stopwatch
from orchestrate.copying.source import Reaching
from orchestrate.guest.prepare import script as preparation
from orchestrate.layout.table import TableKind
from orchestrate.plan import file as plan_file

_STDOUT = "-"


@reaching
def plan(
    config: Annotated[
        str,
        typer.Argument(
            help="The guest's xm or xl configuration: a file here, or on its host "
            "ssh://[user@]host[:port]/etc/xen/GUEST.cfg, or [user@]host:/etc/xen/GUEST.cfg.",
            metavar="GUEST.cfg",
        ),
    ],
    *,
    disk: Annotated[Path, typer.Option("--disk", help="The target: a block device, or a file to be made.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The plan to write; `-` prints it and nothing else."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the plan would be, and write nothing.")
    ] = False,
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
    name: Annotated[
        str | None,
        typer.Option("--name", help="The guest's name on KVM, where it cannot keep the one it has on Xen."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing plan.")] = False,
    override: Override = None,
    reach: Reach,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Read a guest's configuration, probe its volumes and write the plan of its migration."""
    from orchestrate.steps import plan as step  # noqa: PLC0415

    written = None if dry_run else _output(output, disk, force=force)
    if locations.is_far(str(disk)):
        raise Usage(f"--disk {disk}", "is on another host", "run this on the KVM host; a file here is ./NAME")
    request = step.PlanRequest(
        config=locations.parse(config),
        disk=disk,
        mapped=dict(_mapping(pair) for pair in volume or ()),
        table=table,
        first_sector=first_sector,
        root=root,
        name=name,
        reach=reach,
        overrides=frozenset(override or ()),
    )
    with display(json_lines=log_json, color=color(no_color), quiet=voice.quiet) as shown:
        watch = stopwatch(shown, silent=True)
        with watch.step("plan"):
            planned = step.run(request, watch.tell, shown.aside)
    outcome.about(planned.plan.guest.name, planned.plan.disk.path)
    text = plan_file.dump(planned.plan, planned.warnings)
    if written is not None and str(written) != _STDOUT:
        plan_file.write(written, text)
    elif written is not None and not json:
        for warning in planned.warnings:
            voice.warn(warning)
        typer.echo(text, nl=False)
        return
    show.plan(planned.plan, planned.warnings, written, as_json=json, color=color(no_color))


def _output(output: Path | None, disk: Path, *, force: bool) -> Path:
    if output is None:
        raise Usage("-o", "names no plan to write", "give -o GUEST.toml, -o - to print it, or --dry-run")
    if str(output) != _STDOUT:
        plan_file.require_place(output, replace=force)
        if is_same(output, disk):
            raise Usage(output, "is the target disk as well", "name another -o")
    return output


def _mapping(pair: str) -> tuple[str, Path]:
    device, equals, path = pair.partition("=")
    if not (device and equals and path):
        raise Usage(
            f"--volume {pair}", "is not DEVICE=PATH", "e.g. --volume /dev/vg0/guest-root=/srv/root.img"
        )
    return device, Path(path)


@reaching
def prepare(
    guest: Annotated[
        str | None,
        typer.Argument(
            help="The running guest, reached by ssh as root, e.g. root@web1.", metavar="GUEST-HOST"
        ),
    ] = None,
    *,
    print_script: Annotated[
        bool,
        typer.Option("--print", help="Print the script instead, to be read and run in the guest as root."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Put every changed file back; packages stay installed.")
    ] = False,
    reboot: Annotated[
        bool,
        typer.Option("--reboot", help="Then reboot the guest under Xen and check that it came back whole."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Reboot without asking.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the reboot.")] = 300.0,
    reach: Reach,
    json: Json = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Make a running guest ready for KVM days before: kernel, GRUB's package, virtio, UUIDs, serial console.

    No boot loader is written, a menu that Xen reads stays as it is, and each changed file's original stays
    beside it.
    """
    from orchestrate.steps import prepare as step  # noqa: PLC0415

    if print_script:
        if json:
            show.give(results.PrepareResult(dry_run=True, lines=(), reboot=None, script=preparation.script()))
        else:
            typer.echo(preparation.script(), nl=False)
        return
    if guest is None:
        raise Usage("prepare", "names no guest", "give [user@]host, or --print to get the script")
    if reboot and dry_run:
        raise Usage("--reboot", "makes no sense with --dry-run", "leave one of them out")

    outcome.about(guest, None)
    options = tuple(name for name, wanted in (("--dry-run", dry_run), ("--undo", undo)) if wanted)
    with display(json_lines=log_json, color=color(no_color), quiet=voice.quiet) as shown:
        watch = stopwatch(shown, silent=True)

        def connect() -> Transport:
            return Reaching(reach.connection(locations.host_named(guest)), shown.aside)

        def tell(line: preparation.Line) -> None:
            with shown.aside():
                _tell(line, quiet=json)

        with watch.step("prepare"), closing(connect()) as connection:
            lines = step.run(connection, options, tell)
        rebooted = None
        if reboot and (yes or _is_confirmed(shown, f"Reboot {guest} under Xen now?")):
            with watch.step("reboot"):
                watch.tell("waiting for ssh to answer from another boot", timeout)
                rebooted = step.reboot(connect, timeout, time.monotonic)
    if json:
        show.give(results.of_prepare(dry_run=dry_run, lines=lines, rebooted=rebooted))
    elif rebooted is not None:
        typer.echo(
            f"rebooted: {rebooted.seconds:.0f} s, kernel {rebooted.kernel}, every mount and swap is back"
        )


def _is_confirmed(shown: Display, question: str) -> bool:
    with shown.aside():
        return typer.confirm(question, err=True)


def _tell(line: preparation.Line, *, quiet: bool) -> None:
    if not quiet:
        typer.echo(f"{line.kind}: {line.text}")
