"""What the commands print: tables for people, one JSON object for programs."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from blocksync.sizes import format_size
from orchestrate.plan.model import Action, Plan, Volume
from orchestrate.stopwatch import Step

if TYPE_CHECKING:
    from orchestrate.steps.cutover import CutoverReport
    from orchestrate.steps.rehearse import Rehearsal
    from orchestrate.steps.sync import SyncReport

_PASS_FIELDS = ("bytes_total", "bytes_read", "bytes_changed", "bytes_written", "extents_written")


def _console(*, color: bool) -> Console:
    # Where there is no terminal nobody's window is narrow: rows stay whole for grep.
    width = None if sys.stdout.isatty() else 200
    return Console(no_color=not color, highlight=False, width=width)


def _print_json(content: object) -> None:
    json.dump(content, sys.stdout)
    sys.stdout.write("\n")


def plan(plan: Plan, warnings: tuple[str, ...], output: Path, *, as_json: bool, color: bool) -> None:
    """The new disk, partition by partition, and the fix-ups."""
    if as_json:
        _print_json({"plan": msgspec.to_builtins(plan), "warnings": warnings, "output": str(output)})
        return
    console = _console(color=color)
    console.print(f"[bold]{plan.guest.name}[/]: {plan.guest.memory_mib} MiB, {plan.guest.vcpus} vcpu")
    console.print(_partitions(plan))
    for nic in plan.nic:
        console.print(f"nic {nic.mac} on {nic.bridge or 'the default network'}")
    for choice in plan.fixup:
        console.print(f"fix-up [bold]{choice.name}[/]: {choice.why} ({', '.join(choice.files)})")
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {warning}", markup=True)
    console.print(f"plan written to {output}; next: xen2kvm sync {output}")


def _partitions(plan: Plan) -> Table:
    title = f"{plan.disk.path}: {format_size(plan.disk.size)}, {plan.disk.table} table"
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
        volume.filesystem,
        volume.mountpoint or "",
        f"{volume.device} {volume.source}",
        "copied" if volume.action is Action.COPY else "recreated",
    )


def sync(report: "SyncReport", *, dry_run: bool, as_json: bool, color: bool) -> None:
    """What a pass changed, volume by volume; what was noted goes to standard error."""
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for one in report.passes:
        for note in one.report.notes:
            print(f"note: {one.volume.device}: {note}", file=sys.stderr)
    if as_json:
        _print_json(sync_json(report))
        return
    console = _console(color=color)
    would = "would be " if dry_run else ""
    if report.table_written:
        console.print(f"partition table {would}written")
    for one in report.passes:
        done = one.report
        read, changed, written = (
            format_size(size) for size in (done.bytes_read, done.bytes_changed, done.bytes_written)
        )
        console.print(
            f"{one.volume.device}: {read} read, {changed} changed, "
            f"{written} {would}written in {done.extents_written} extents, {done.seconds:.2f} s"
        )
    for device in report.swap_made:
        console.print(f"{device}: swap {would}made anew")


def sync_json(report: "SyncReport") -> dict[str, object]:
    """A pass as JSON: the sums over all volumes, then each volume."""
    volumes = {
        one.volume.device: {field: getattr(one.report, field) for field in (*_PASS_FIELDS, "seconds")}
        for one in report.passes
    }
    return {
        **{field: report.total(field) for field in _PASS_FIELDS},
        "seconds": sum(one.report.seconds for one in report.passes),
        "moment": report.moment,
        "table_written": report.table_written,
        "swap_made": list(report.swap_made),
        "volumes": volumes,
    }


def step(step: Step, *, color: bool) -> None:
    """A finished step, on standard error: standard output is for the result."""
    console = Console(stderr=True, no_color=not color, highlight=False)
    console.print(f"{step.seconds:8.2f} s  {step.name}")


def rehearsal(rehearsal: "Rehearsal", *, as_json: bool, color: bool) -> None:
    """That the guest came up, and where its console is kept."""
    if as_json:
        _print_json(
            {"seen": rehearsal.seen, "steps": _steps(rehearsal.steps), "console": str(rehearsal.console)}
        )
        return
    console = _console(color=color)
    console.print(f"[green]the guest comes up[/]: its console says {rehearsal.seen!r}")
    console.print(f"console kept in {rehearsal.console}")


def cutover(report: "CutoverReport", name: str, *, as_json: bool, color: bool) -> None:
    """The proof, the downtime, and how to start the guest where it was not started."""
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        _print_json(cutover_json(report))
        return
    console = _console(color=color)
    for device, proof in report.proofs.items():
        console.print(f"{device}: verified, {proof}")
    for result in report.checks:
        console.print(f"check {result.name}: {result.cause or 'passed'}", markup=False)
    if report.downtime is not None:
        console.print(f"downtime: {report.downtime:.1f} s")
    if report.started:
        console.print("[green]the guest runs on KVM[/]")
    else:
        console.print("the target is the guest's disk; start it:")
        console.print(f"  virsh define {report.xml} && virsh start {name}")


def cutover_json(report: "CutoverReport") -> dict[str, object]:
    """A cutover as JSON; the job keeps the same in its report."""
    return {
        "last_pass": None if report.last_pass is None else sync_json(report.last_pass),
        "proofs": report.proofs,
        "steps": _steps(report.steps),
        "xml": str(report.xml),
        "started": report.started,
        "downtime": None if report.downtime is None else round(report.downtime, 3),
        "checks": [
            {"name": result.name, "passed": result.passed is not None, "cause": result.cause}
            for result in report.checks
        ],
        "notes": list(report.notes),
    }


def _steps(steps: tuple[Step, ...]) -> list[dict[str, object]]:
    return [{"name": step.name, "seconds": round(step.seconds, 3)} for step in steps]
