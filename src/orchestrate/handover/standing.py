"""Where a migration stands, in three lines: where the guest is, what is proven and rehearsed, what is next.

Pure: from what the job's files say and the time. The hosts are not asked; each command asks them itself.
"""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from blocksync.foreign import shown
from orchestrate.copying import forecast
from orchestrate.copying.forecast import Forecast
from orchestrate.job.folder import JobState, Phase
from orchestrate.job.journal import Closed, Content, JournalEntry, Owner
from orchestrate.job.journal import CutoverStatus as StepStatus

_MOST = 200
"""Characters of an error's cause in a line."""
_FRESH_SECONDS = 6 * 3600.0
"""A moment that is older should be followed by passes before a cutover is thought of."""
_NEEDED = ("journal.json", "state.json", "plan")
"""Files without which no command is right."""
_ROLLBACK = frozenset(
    {"stop on KVM", "undo the fix-ups", "send the changes back", "verify the Xen volumes", "start on Xen"}
)
"""Steps that only a rollback has."""


class Situation(StrEnum):
    """What it comes to; the most urgent first."""

    TORN = "torn"
    DOWN = "down"
    UNKNOWN = "unknown"
    UNPROVEN = "unproven"
    BROKEN = "broken"
    FAILED = "failed"
    HELD = "held"
    READY = "ready"
    PASSES = "passes"
    NEW = "new"
    ON_KVM = "on-kvm"
    FINISHED = "finished"

    @property
    def urgency(self) -> int:
        """Lower is more urgent."""
        return list(Situation).index(self)


@dataclass(frozen=True, slots=True)
class GuestPlace:
    """The process that has the job, and the words of its command line, if they can be read."""

    pid: int
    command: str = ""

    def __str__(self) -> str:
        return f"`{self.command}`, process {self.pid}" if self.command else f"process {self.pid}"


@dataclass(frozen=True, slots=True)
class Broken:
    """A file of the job that says nothing: its name in the folder, what is wrong, what to do."""

    file: str
    cause: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.file} {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """What is known of a job. `state` and `journal` are None where nothing was kept, or nothing that can be
    read: then `broken` has it. `plan` is the plan's path, `target` the disk in it. `job_dir` is what the
    commands need to find the job, None where they find it by the guest's name. `command` are the words that
    the job was last worked on with, in the folder `directory`. `xml` is where the domain's XML was put.
    """

    guest: str
    plan: str | None = None
    target: str | None = None
    job_dir: str | None = None
    state: JobState | None = None
    journal: Content | None = None
    torn: bool = False
    holder: GuestPlace | None = None
    command: tuple[str, ...] = ()
    directory: str = "/"
    xml: str | None = None
    broken: tuple[Broken, ...] = ()

    def is_broken(self, file: str) -> Broken | None:
        """What is wrong with this file, if something is."""
        return next((each for each in self.broken if each.file == file), None)


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer. `brief` is where the guest is, for a row of a table; `command` what the third line names,
    None where no command is right before something else was done.
    """

    situation: Situation
    brief: str
    lines: tuple[str, str, str]
    command: str | None


def of(found: FoundJob, now: float) -> Standing:
    """Where a migration stands at `now`, in seconds since 1970."""
    situation, where, brief = _where(found, now)
    command, advice = _next(found, situation, now)
    if found.holder is not None:
        where += f"; held by {shown(str(found.holder), _MOST)}"
    if (lock := found.is_broken("lock")) is not None:
        where += f"; whether a command holds it is unknown: {lock}"
    if situation.urgency > Situation.BROKEN.urgency and found.broken:
        situation = Situation.BROKEN
        brief = str(found.broken[0])
    lines = (f"{found.guest}: {where}", _known(found, now), f"next: {command or advice}")
    one, two, three = (shown(line, 1000) for line in lines)
    return Standing(situation, shown(brief), (one, two, three), command)


def _where(found: FoundJob, now: float) -> tuple[Situation, str, str]:
    """What it comes to, where the guest is, and the same for a row."""
    if found.torn:
        told = (
            "stopped, and its Xen volumes are half written: a sending back was interrupted; "
            "its disk on KVM is whole"
        )
        return Situation.TORN, told, "stopped; Xen volumes half written"
    if (wrong := found.is_broken("journal.json")) is not None:
        return Situation.UNKNOWN, f"nobody knows whether it is on Xen or on KVM: {wrong}", str(wrong)
    content = found.journal
    if content is None or not _is_current(found, content):
        return _on_xen(found, now)
    return _of_a_cutover(found, content, now)


def _of_a_cutover(found: FoundJob, content: Content, now: float) -> tuple[Situation, str, str]:
    if content.closed is Closed.FINISHED:
        return Situation.FINISHED, f"on KVM{_since(content.serving, now)}; finished", "on KVM, finished"
    if _last(content) is not None and _is_rollback(content):
        return _rolling_back(found, content, now)
    if content.owner is Owner.KVM:
        return _on_kvm(found, content, now)
    if content.closed is Closed.DONE:
        told = f"stopped on Xen{_since(content.stopped, now)}; {content.target} is its disk now"
        return Situation.DOWN, f"{told}, to be started by you", "stopped; start it on KVM yourself"
    return _between(found, content, now)


def _is_current(found: FoundJob, content: Content) -> bool:
    """Whether the journal's cutover is not over: rolled back, or given up for passes."""
    again = found.state is not None and found.state.phase is Phase.PASSES and content.closed is Closed.DONE
    return content.closed is not Closed.ROLLED_BACK and not again


def _on_xen(found: FoundJob, now: float) -> tuple[Situation, str, str]:
    content, state = found.journal, found.state
    told = "on Xen"
    if content is not None and content.closed is Closed.ROLLED_BACK:
        back = _latest(content, "start on Xen")
        told += f"; rolled back{'' if back is None else _ago(_time(back.begun), now)}"
    elif content is not None and content.closed is Closed.DONE:
        told += ", by your word: passes were begun again after its cutover"
    if state is None or state.passes == 0:
        return (Situation.HELD if found.holder else Situation.NEW), told, "on Xen; no pass yet"
    if found.holder:
        return Situation.HELD, told, "on Xen; a command is at work"
    if _is_ready(state, now):
        return Situation.READY, told, "on Xen; ready for its cutover"
    return Situation.PASSES, told, f"on Xen; {_count(state.passes)}"


def _between(found: FoundJob, content: Content, now: float) -> tuple[Situation, str, str]:
    """A cutover that has not come to the start on KVM."""
    last = _last(content)
    stop = _latest(content, "stop")
    if stop is not None and stop.status is StepStatus.DONE:
        told = f"stopped{_since(content.stopped, now)}: the guest is down!"
        if content.handed_over:
            told += " Its disk on KVM is ready, and not started"
        return Situation.DOWN, f"{told}{_step(found, last, now)}", f"down{_since(content.stopped, now)}"
    if stop is not None and content.stopped is not None:
        told = f"on Xen, or down: it was asked to stop{_ago(content.stopped, now)}"
        return Situation.DOWN, f"{told}{_step(found, last, now)}", "asked to stop, perhaps down"
    situation, told, brief = _on_xen(found, now)
    if last is None or _is_over(found, last):
        return situation, told, brief
    if found.holder is not None:
        return Situation.HELD, f"{told}{_step(found, last, now)}", "on Xen; cutover at work"
    return Situation.FAILED, f"{told}{_step(found, last, now)}", f"on Xen; cutover failed: {last.step}"


def _on_kvm(found: FoundJob, content: Content, now: float) -> tuple[Situation, str, str]:
    start, last = _latest(content, "start"), _last(content)
    if content.closed is Closed.DONE:
        return (
            Situation.ON_KVM,
            f"on KVM{_since(content.serving, now)}",
            f"on KVM{_since(content.serving, now)}",
        )
    if content.serving is not None:
        told = f"on KVM{_since(content.serving, now)}, but not all of its checks passed"
        return Situation.UNPROVEN, f"{told}{_step(found, last, now)}", "on KVM; checks failed"
    begun = None if start is None else _time(start.begun)
    told = f"on KVM{_since(begun, now)}, and not seen to serve"
    return Situation.UNPROVEN, f"{told}{_step(found, last, now)}", "on KVM, not seen to serve"


def _is_rollback(content: Content) -> bool:
    """Whether what was last begun is a rollback, which has not come to its end."""
    last = _last(content)
    return last is not None and last.step in _ROLLBACK


def _rolling_back(found: FoundJob, content: Content, now: float) -> tuple[Situation, str, str]:
    last = _last(content)
    if last is not None and last.step == "stop on KVM" and last.status is not StepStatus.DONE:
        told = "on KVM, or stopped: it is to go back to Xen"
    else:
        told = "stopped: the guest is down! It is to go back to Xen"
    return Situation.DOWN, f"{told}{_step(found, last, now, 'rollback')}", "down; a rollback is not complete"


def _step(found: FoundJob, entry: JournalEntry | None, now: float, what: str = "cutover") -> str:
    """How the latest step ended, if it is worth a word."""
    if entry is None or entry.status is StepStatus.DONE:
        return ""
    when = _ago(_time(entry.begun), now)
    if entry.status is StepStatus.FAILED:
        return f"; the {what} failed at `{entry.step}`{when}: {_in_a_line(entry.cause)}"
    if found.holder is not None:
        return f"; the {what} is at `{entry.step}`, begun{when}"
    return f"; the {what} was killed at `{entry.step}`{when}"


def _is_over(found: FoundJob, entry: JournalEntry) -> bool:
    """Whether what failed is history: passes or a rehearsal came after it."""
    begun, state = _time(entry.begun), found.state
    if begun is None or state is None:
        return False
    later = [record.at for record in state.records[-1:]]
    later += [at for at in [_time(state.rehearsed or "")] if at is not None]
    return entry.status is not StepStatus.BEGUN and any(at > begun for at in later)


def _in_a_line(cause: str | None) -> str:
    """A cause, which may tell of several things, without its ways out."""
    lines = [line.strip().removeprefix("- ") for line in (cause or "no cause is known").splitlines()]
    return shown("; ".join(line for line in lines if not line.startswith("hint:")), _MOST)


def _known(found: FoundJob, now: float) -> str:
    """What is proven and rehearsed, and when."""
    if (wrong := found.is_broken("state.json")) is not None:
        return f"passes, proof and rehearsal are unknown: {wrong}"
    state, content = found.state, found.journal
    if state is None or not (state.passes or state.rehearsed):
        return "no pass yet; not proven; not rehearsed"
    about = (
        "" if found.target in (None, state.target) else f" of {state.target}, which is not the plan's disk"
    )
    told = [f"{_count(state.passes)}{about}", *_of_the_newest(state, now)]
    if content is not None and content.handed_over and _is_current(found, content):
        told = [f"{_count(state.passes)}{about}", *_of_the_cutover(content)]
    rehearsed = _time(state.rehearsed or "")
    told.append("not rehearsed" if state.rehearsed is None else f"rehearsed{_ago(rehearsed, now)}")
    if (seconds := predicted(state, now)) is not None and state.phase is Phase.PASSES:
        told.append(f"its last pass would take {seconds:.1f} s")
    return "; ".join(told)


def _of_the_newest(state: JobState, now: float) -> Iterable[str]:
    if state.records:
        yield f"the newest from{_ago(state.records[-1].at, now)}"
    if state.phase is Phase.FINISHING:
        yield "the target was written to since: the next pass compares everything"
    elif state.is_proven:
        yield "proven as a whole"
    else:
        yield "not proven as a whole"


def _of_the_cutover(content: Content) -> Iterable[str]:
    if content.proofs:
        yield f"proven: {', '.join(sorted(content.proofs))}"
    if content.stopped is not None and content.serving is not None:
        yield f"downtime {content.serving - content.stopped:.1f} s"


def predicted(state: JobState, now: float) -> float | None:
    """What the last pass would take, in seconds, if the guest stopped now; None when nothing is known."""
    found = outlook(state)
    if found is None:
        return None
    try:
        return found.seconds(max(0.0, now - state.records[-1].at))
    except ArithmeticError:
        return None


def outlook(state: JobState) -> Forecast | None:
    """The forecast of a state, None also for figures that no pass can have."""
    try:
        return forecast.of(state.records)
    except (ArithmeticError, ValueError):
        return None


def _is_ready(state: JobState, now: float) -> bool:
    fresh = bool(state.records) and now - state.records[-1].at < _FRESH_SECONDS
    # Volumes without snapshots have no moment that could be proven before the guest stops.
    proven = state.is_proven or (state.moment is None and len(state.records) > 1)
    return state.rehearsed is not None and proven and fresh and state.phase is Phase.PASSES


def _next(found: FoundJob, situation: Situation, now: float) -> tuple[str | None, str]:
    """The command, or else what has to be done before any."""
    if found.holder is not None:
        return None, f"wait for {found.holder}"
    wrong = next((each for each in found.broken if each.file in _NEEDED), None)
    if wrong is not None:
        return None, f"no command before {wrong.file} can be read: {wrong.way_out or wrong.cause}"
    return _command_for(found, situation, now), ""


def _command_for(found: FoundJob, situation: Situation, now: float) -> str:
    content = found.journal
    match situation:
        case Situation.TORN:
            return _command(found, "rollback", "--send-back")
        case Situation.DOWN if content is not None and _is_rollback(content):
            # What the guest wrote on KVM is not given up by a command that one copies.
            options = ("--send-back",) if content.owner is Owner.KVM or content.closed is Closed.DONE else ()
            return _resumed(found, "rollback", *options)
        case Situation.DOWN if content is not None and content.closed is Closed.DONE:
            xml = found.xml or str(Path(found.plan or f"{found.guest}.toml").with_suffix(".xml"))
            return f"virsh define {shlex.quote(xml)} && virsh start {shlex.quote(found.guest)}"
        case Situation.DOWN | Situation.UNPROVEN:
            return _resumed(found, "cutover", "--start")
        case Situation.ON_KVM | Situation.FINISHED:
            return _command(found, "finish", "--mark")
    return _of_passes(found, now)


def _of_passes(found: FoundJob, now: float) -> str:
    """The next command of a guest on Xen."""
    state = found.state
    if state is None or state.passes == 0 or state.phase is not Phase.PASSES:
        return _command(found, "sync")
    if state.rehearsed is None:
        return _command(found, "rehearse")
    if not _is_ready(state, now):
        return _command(found, "precopy")
    return _resumed(found, "cutover", "--start")


def _command(found: FoundJob, name: str, *options: str) -> str:
    words = ["xen2kvm", name, found.plan or f"{found.guest}.toml", *options]
    if found.job_dir is not None:
        words += ["--job-dir", found.job_dir]
    return shlex.join(words)


def _resumed(found: FoundJob, name: str, *options: str) -> str:
    """The same command line again, if the latest was of this command: its options are the operator's."""
    if found.command[:1] != (name,):
        return _command(found, name, *options)
    # Going back to passes, and giving up what a guest wrote, are no part of going on.
    if "--discard" in found.command:
        return _command(found, name, *options)
    words = [word for word in found.command if word not in ("--again", "--yes", "--json", "--log-json")]
    words = [found.plan if _is_plan(found, word) and found.plan else word for word in words]
    return ("" if _all_absolute(words) else f"cd {shlex.quote(found.directory)} && ") + shlex.join(
        ["xen2kvm", *words]
    )


def _is_plan(found: FoundJob, word: str) -> bool:
    return os.path.normpath(Path(found.directory) / word) == found.plan


def _all_absolute(words: list[str]) -> bool:
    """Whether the command means the same in every folder: the options that take paths have whole ones."""
    taking = ("--xml", "--job-dir", "--ssh-config")
    for word, after in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in taking and not (value if equals else after).startswith("/"):
            return False
    return True


def _last(content: Content) -> JournalEntry | None:
    return content.steps[-1] if content.steps else None


def _latest(content: Content, step: str) -> JournalEntry | None:
    return next((entry for entry in reversed(content.steps) if entry.step == step), None)


def _count(passes: int) -> str:
    return "1 pass" if passes == 1 else f"{passes} passes"


def _time(text: str) -> float | None:
    """Seconds since 1970 of a time as the journal writes it."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _since(at: float | None, now: float) -> str:
    """` since` a time, and how long that is; nothing where it is not known."""
    if at is None:
        return ""
    try:
        when = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return " since an unknown time"
    return f" since {when:%Y-%m-%d %H:%M}Z ({_long(now - at)})"


def _ago(at: float | None, now: float) -> str:
    return "" if at is None else f" {_long(now - at)} ago"


def _long(seconds: float) -> str:
    """How long that is, in the largest unit that has two of them."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
