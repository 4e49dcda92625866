"""What `xen2kvm status` prints."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from blocksync.commands.outcome import outcome
from blocksync.foreign import shown
from blocksync.sizes import format_size
from orchestrate.commands import results
from orchestrate.job.folder import JobState, PassRecord
from orchestrate.job.journal import Content
from orchestrate.steps.status import JobStatus

_RECORDS = 10
_GUEST, _WHERE, _NEXT = 16, 38, 22
"""The widths of a row: 80 columns with the gaps."""


def lines(status: JobStatus, *, as_json: bool, verbosity: int, color: bool) -> None:
    """A job in three lines; with verbosity its passes, and the steps of its cutover."""
    if as_json:
        _give(status)
        return
    first, *others = status.standing.lines
    bold = ("\x1b[1m", "\x1b[0m") if color and sys.stdout.isatty() else ("", "")
    print(f"{bold[0]}{first}{bold[1]}", *others, sep="\n")
    found = status.found
    for broken in found.broken:
        print(f"  {broken}")
    if verbosity and found.state is not None:
        print(*_passes(found.state), sep="\n")
    if found.journal is not None and _is_wanted(found.journal, verbosity):
        print(*_steps(found.journal), sep="\n")


def table(found: Sequence[JobStatus], parent: Path, *, as_json: bool) -> None:
    """A row for each job, at 80 columns."""
    if as_json:
        outcome.give(msgspec.to_builtins(results.JobsResult(jobs=tuple(_row_of(each) for each in found))))
        return
    if not found:
        print(f"no job in {shown(str(parent))}; one begins with `xen2kvm plan` and `xen2kvm sync`")
        return
    print(_row("guest", "where it is", "next"))
    for each in found:
        print(_row(each.found.guest, each.standing.brief, _short(each)))


def _short(status: JobStatus) -> str:
    command = status.standing.command
    if command is None:
        return "wait" if status.found.holder else "mend the file first"
    words = command.partition("xen2kvm ")[2].split() if "xen2kvm " in command else command.split()
    return " ".join(
        [*words[:1], *(word for word in words[1:] if word in ("--start", "--send-back", "--mark"))]
    )


def _row(guest: str, where: str, following: str) -> str:
    cells = zip((guest, where, following), (_GUEST, _WHERE, _NEXT), strict=True)
    return "  ".join(_cell(text, width) for text, width in cells).rstrip()


def _cell(text: str, width: int) -> str:
    return (text if len(text) <= width else f"{text[: width - 2]}..").ljust(width)


def _passes(state: JobState) -> list[str]:
    rows = [
        f"  {'moment':20}  {'from':9}  {'looked at':>10}  {'changed':>10}  {'written':>10}  {'seconds':>8}"
    ]
    return rows + [_pass(record) for record in state.records[-_RECORDS:]]


def _pass(record: PassRecord) -> str:
    try:
        when = f"{datetime.fromtimestamp(record.at, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        when = "unknown"
    sizes = "  ".join(
        f"{format_size(size):>10}" for size in (record.looked_at, record.changed, record.written)
    )
    return f"  {when:20}  {record.source:9}  {sizes}  {record.seconds:8.1f}"


def _is_wanted(content: Content, verbosity: int) -> bool:
    """What is over is history: a cutover that was finished, proven or rolled back."""
    return verbosity > 1 or (verbosity == 1 and content.closed is None)


def _steps(content: Content) -> list[str]:
    over = "" if content.closed is None else f" ({content.closed.value.replace('-', ' ')})"
    rows = [f"  cutover{over}:"]
    for entry in content.steps:
        took = "" if entry.seconds is None else f" in {entry.seconds:.1f} s"
        cause = f": {shown(entry.cause)}" if entry.cause else ""
        rows.append(f"  {shown(entry.begun)}  {shown(entry.step)}: {entry.status.value}{took}{cause}")
    return rows


def _give(status: JobStatus) -> None:
    found, answer = status.found, status.standing
    result = results.StatusResult(
        lines=answer.lines,
        situation=answer.situation.value,
        next=answer.command,
        broken=tuple(str(each) for each in found.broken),
        holder=None if found.holder is None else found.holder.pid,
        predicted=status.predicted,
        forecast=results.of_forecast(status.forecast),
        journal=found.journal,
    )
    state = found.state
    if state is None and found.is_broken("state.json") is None:
        state = JobState(target=found.target or "")
    outcome.give({**({} if state is None else msgspec.to_builtins(state)), **msgspec.to_builtins(result)})


def _row_of(status: JobStatus) -> results.JobRow:
    answer = status.standing
    return results.JobRow(
        guest=status.found.guest,
        folder=str(status.folder),
        lines=answer.lines,
        situation=answer.situation.value,
        next=answer.command,
        broken=tuple(str(each) for each in status.found.broken),
    )
