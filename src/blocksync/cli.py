"""The `blocksync` command."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blocksync import passes, progress
from blocksync.errors import BlocksyncError, ExitCode
from blocksync.passes import PassReport, PassRequest
from blocksync.sizes import format_size, parse_size

if TYPE_CHECKING:
    from blocksync.extents import Extents

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Make a range of a block device or image equal to another, writing only what differs.",
)

Source = Annotated[Path, typer.Argument(help="Device or image file to read; it is never written.")]
Target = Annotated[
    Path, typer.Argument(help="Device or image file to write; a missing file is made, sparse.")
]
TargetOffset = Annotated[str, typer.Option(metavar="BYTES", help="Where the range starts on the target.")]
Size = Annotated[
    str | None, typer.Option(metavar="BYTES", help="How much to copy; the whole source if left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
NoColor = Annotated[
    bool, typer.Option("--no-color", help="No colours; NO_COLOR in the environment does the same.")
]
LogJson = Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")]
Direct = Annotated[
    bool, typer.Option("--direct", help="Read regular files past the page cache too (large, cold images).")
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache",
        help="Read block devices through the page cache. Wrong for a running guest's volume: the guest "
        "writes underneath that cache, and stale bytes are copied.",
    ),
]


@app.command()
def sync(
    source: Source,
    target: Target,
    *,
    target_offset: TargetOffset = "0",
    size: Size = None,
    digests: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Remembers what the target holds, so that it is not read again."),
    ] = None,
    block_size: Annotated[
        str, typer.Option(metavar="BYTES", help="Unit of comparing, a power of two.")
    ] = "64KiB",
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Read blocks of the target not known.")
    ] = True,
    only: Annotated[
        Path | None, typer.Option(metavar="EXTENTS", help="Look only at the extents in this file.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written; write nothing.")
    ] = False,
    direct: Direct = False,
    cache: Cache = False,
    override: Annotated[
        list[str] | None,
        typer.Option(metavar="GUARD", help="Leave out a guard, by the name that its refusal gives."),
    ] = None,
    as_json: AsJson = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Make the target range equal to the source, writing only blocks that differ."""
    request = PassRequest(
        source=source,
        target=target,
        target_offset=parse_size(target_offset),
        size=None if size is None else parse_size(size),
        digests=digests,
        block_size=parse_size(block_size),
        compare=compare,
        only=None if only is None else _extents(only),
        dry_run=dry_run,
        direct=direct,
        cache=cache,
        overrides=frozenset(override or ()),
    )
    with _display(log_json, no_color) as shown:
        report = passes.run(request, progress=shown.task("sync"))
    for note in report.notes:
        print(f"blocksync: note: {note}", file=sys.stderr)
    print(json.dumps(_fields(report)) if as_json else summary(report))


@app.command()
def verify(
    source: Source,
    target: Target,
    *,
    target_offset: TargetOffset = "0",
    size: Size = None,
    direct: Direct = False,
    cache: Cache = False,
    as_json: AsJson = False,
    log_json: LogJson = False,
    no_color: NoColor = False,
) -> None:
    """Compare both sides completely with BLAKE3; exit code 4 when they differ."""
    from blocksync.verify import compare  # noqa: PLC0415

    with _display(log_json, no_color) as shown:
        result = compare(
            source,
            target,
            target_offset=parse_size(target_offset),
            size=None if size is None else parse_size(size),
            direct=direct,
            cache=cache,
            progress=shown.task("verify"),
        )
    if as_json:
        roots = {"source_root": result.source_root, "target_root": result.target_root}
        print(json.dumps({"equal": result.equal, **roots, "differing": result.differing.pairs()}))
    else:
        print(f"{result.source_root}  {source}\n{result.target_root}  {target}")
        for offset, length in result.differing.pairs():
            print(f"differs: {length} bytes at {offset}")
    if not result.equal:
        raise typer.Exit(ExitCode.DIFFERENCES)


def summary(report: PassReport) -> str:
    """The report in one line."""
    verb = "would be written" if report.dry_run else "written"
    holes = f", {format_size(report.bytes_zeroed)} made holes" if report.bytes_zeroed else ""
    count = report.bytes_changed if report.dry_run else report.bytes_written
    return (
        f"{format_size(report.bytes_total)} compared, {format_size(report.bytes_changed)} differed, "
        f"{format_size(count)} {verb} in {report.extents_written} extents{holes}, "
        f"{report.seconds:.2f} s"
    )


def _fields(report: PassReport) -> dict[str, object]:
    fields = asdict(report)
    del fields["changed_blocks"]
    return fields


def _extents(path: Path) -> "Extents":
    from blocksync.extents import Extents  # noqa: PLC0415

    return Extents.read(path)


def _display(log_json: bool, no_color: bool) -> progress.Display:
    return progress.display(json_lines=log_json, color=not (no_color or os.environ.get("NO_COLOR")))


def main() -> None:
    """Entry point: every BlocksyncError becomes one message and its exit code."""
    sys.exit(run(app))


def run(command: Callable[[], object]) -> int:
    """Call a typer app; the exit code of whatever it ended with."""
    try:
        command()
    except BlocksyncError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.FAILED)
    return int(ExitCode.DONE)
