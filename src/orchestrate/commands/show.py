"""What the commands print: tables for people, one JSON object for programs."""

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blocksync.commands.outcome import outcome
from blocksync.foreign import shown
from blocksync.sizes import format_size
from blocksync.voice import voice
from orchestrate.commands import results
from orchestrate.plan.model import Action, Plan, Volume

if TYPE_CHECKING:
    from orchestrate.copying.live import Passed, PrecopyReport
    from orchestrate.copying.passes import SyncReport
    from orchestrate.steps.cutover import CutoverReport
    from orchestrate.steps.rehearse import Rehearsal

_LONGEST_LINE = 2000


def _console(*, color: bool) -> Console:
    # Where there is no terminal nobody's window is narrow: rows stay whole for grep.
    width = None if sys.stdout.isatty() else 200
    return Console(no_color=not color, highlight=False, markup=False, emoji=False, width=width)


def _say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print a line of parts, each a text or a text and its style. Guests and hosts gave some of them: what is
    in them is neither markup nor a control character.
    """
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    console.print(Text.assemble(*((shown(text, _LONGEST_LINE), style) for text, style in pairs)))


def give(result: msgspec.Struct) -> None:
    """The result, for --json: it is printed when the command ends."""
    outcome.give(msgspec.to_builtins(result))


def plan(plan: Plan, warnings: tuple[str, ...], output: Path | None, *, as_json: bool, color: bool) -> None:
    """The new disk, partition by partition, and the fix-ups. `output` None: the plan was not written."""
    if as_json:
        give(results.of_plan(plan, warnings, output))
        return
    console = _console(color=color)
    _say(console, (plan.guest.name, "bold"), f": {plan.guest.memory_mib} MiB, {plan.guest.vcpus} vcpu")
    console.print(_partitions(plan))
    for nic in plan.nic:
        _say(console, f"nic {nic.mac} on {nic.bridge or 'the default network'}")
    for choice in plan.fixup:
        _say(console, "fix-up ", (choice.name, "bold"), f": {choice.why} ({', '.join(choice.files)})")
    for warning in warnings:
        _say(console, ("warning:", "yellow"), f" {warning}")
    if output is None:
        _say(console, "no plan was written: name its file with -o, and leave --dry-run out")
    else:
        _say(console, f"plan written to {output}; next: xen2kvm sync {quote(str(output))}")


def _partitions(plan: Plan) -> Table:
    title = f"{shown(plan.disk.path)}: {format_size(plan.disk.size)}, {plan.disk.table} table"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("part", "offset", "size", "file system", "mounted at", "from", "action"):
        numeric = heading in {"part", "offset", "size"}
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric)
    for volume in plan.volume:
        table.add_row(*_partition_row(volume))
    return table


def _partition_row(volume: Volume) -> tuple[str, ...]:
    place = volume.partition
    return (
        str(place.number),
        str(place.offset),
        format_size(place.size),
        shown(volume.filesystem),
        shown(volume.mountpoint or ""),
        shown(f"{volume.device} {volume.source}"),
        "copied" if volume.action is Action.COPY else "recreated",
    )


def sync(report: "SyncReport", *, dry_run: bool, as_json: bool, color: bool) -> None:
    """What a pass changed, volume by volume; what was noted goes to standard error."""
    for note in report.notes:
        voice.note(note)
    for one in report.passes:
        for note in one.report.notes:
            voice.note(f"{one.volume.device}: {note}")
    if as_json:
        give(results.of_sync(report))
        return
    console = _console(color=color)
    would = "would be " if dry_run else ""
    if report.table_written:
        console.print(f"partition table {would}written")
    for one in report.passes:
        done = one.report
        read, changed, written = (
            format_size(size)
            for size in (done.bytes_read, done.bytes_changed, done.bytes_to_write or done.bytes_written)
        )
        console.print(
            f"{one.volume.device}: {read} read, {changed} changed, "
            f"{written} {would}written in {done.extents_written} extents, {done.seconds:.2f} s"
        )
    for device in report.swap_made:
        console.print(f"{device}: swap {would}made anew")


def passed(one: "Passed") -> None:
    """A pass of a pre-copy, on standard error: standard output is for the result."""
    for note in one.report.notes:
        voice.note(note)
    looked_at, changed = (format_size(one.report.total(field)) for field in ("bytes_total", "bytes_changed"))
    outlook = "" if one.predicted is None else f"; one more would take {one.predicted:.1f} s"
    voice.note(f"pass {one.number}: {looked_at} looked at, {changed} changed{outlook}")


def precopy(report: "PrecopyReport", *, as_json: bool, color: bool) -> None:
    """Whether the guest is ready for its cutover, and what its last pass would take."""
    if as_json:
        give(results.of_precopy(report))
        return
    console = _console(color=color)
    for device, proof in report.proofs.items():
        _say(console, f"{device}: verified, {proof}")
    if report.ready and report.predicted is not None:
        _say(console, ("ready", "green"), f": the last pass would take {report.predicted:.1f} s")


def rehearsal(rehearsal: "Rehearsal", *, as_json: bool, color: bool) -> None:
    """That the guest came up, and where its console is kept."""
    for note in rehearsal.notes:
        voice.note(note)
    if as_json:
        give(results.of_rehearsal(rehearsal))
        return
    console = _console(color=color)
    _say(console, ("the guest comes up", "green"), f": its console says {rehearsal.seen!r}")
    _say(console, f"console kept in {rehearsal.console}")


def cutover(report: "CutoverReport", name: str, *, as_json: bool, color: bool) -> None:
    """The proof, the downtime, and how to start the guest where it was not started."""
    for note in report.notes:
        voice.note(note)
    if as_json:
        give(results.of_cutover(report))
        return
    console = _console(color=color)
    for device, proof in report.proofs.items():
        _say(console, f"{device}: verified, {proof}")
    for result in report.checks:
        _say(console, f"check {result.name}: {result.cause or 'passed'}")
    if report.downtime is not None:
        console.print(f"downtime: {report.downtime:.1f} s")
    if report.started:
        _say(console, ("the guest runs on KVM", "green"))
    else:
        console.print("the target is the guest's disk; start it:")
        _say(console, f"  virsh define {quote(str(report.xml))} && virsh start {quote(name)}")


def cutover_json(report: "CutoverReport") -> object:
    """What the job keeps of a cutover: the same as --json prints."""
    return msgspec.to_builtins(results.of_cutover(report))
