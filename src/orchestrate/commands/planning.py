"""`xen2kvm plan`."""

from pathlib import Path
from typing import Annotated

import typer

from blocksync import locations
from blocksync.errors import Usage
from orchestrate import show
from orchestrate.commands.options import Fingerprint, Json, NoColor, Override, Transport, color
from orchestrate.layout.table import TableKind
from orchestrate.plan import file as plan_file
from orchestrate.source import Reach


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
    show.plan(planned.plan, planned.warnings, output, as_json=json, color=color(no_color))


def _mapping(pair: str) -> tuple[str, Path]:
    device, equals, path = pair.partition("=")
    if not (device and equals and path):
        raise Usage(
            f"--volume {pair}", "is not DEVICE=PATH", "e.g. --volume /dev/vg0/guest-root=/srv/root.img"
        )
    return device, Path(path)
