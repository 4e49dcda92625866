"""`xen2kvm status`: where migrations stand, read without holding a job. No file that it meets is trusted."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from blocksync import own_files
from blocksync.errors import BlocksyncError, Usage, why
from blocksync.foreign import shown, shown_bytes
from orchestrate.copying.forecast import Forecast
from orchestrate.handover import standing
from orchestrate.handover.standing import Broken, FoundJob, GuestPlace, Standing
from orchestrate.job import folder as job
from orchestrate.job import invocation, journal, send_back_mark
from orchestrate.job.folder import DEFAULT_FOLDER, JobState
from orchestrate.job.invocation import Invocation
from orchestrate.job.journal import Content
from orchestrate.plan import file as plan_file
from orchestrate.plan.model import Plan

_LARGEST = 16 << 20
_LOOK = "find out on which side the guest runs; when it runs on Xen alone, move the file away"
_WAYS_OUT = {
    "state.json": "if the target is no guest's disk yet, move it away and run `xen2kvm sync` again",
    journal.FILE: _LOOK,
    invocation.FILE: "move it away; the next command makes it again",
    "lock": "move it away",
}
_OF_A_JOB = ("state.json", journal.FILE, invocation.FILE, "lock")

Kept = TypeVar("Kept", JobState, Content, Invocation)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job: its folder, what was found there, what it comes to, and what can be foretold of its next pass
    (`predicted` in seconds, if the guest stopped now).
    """

    folder: Path
    found: FoundJob
    standing: Standing
    forecast: Forecast | None
    predicted: float | None


def of_plan(path: Path, folder: Path | None, now: float | None = None) -> JobStatus:
    """The status of a plan's guest, whose job is in `folder` or below DEFAULT_FOLDER.

    Raises Usage where neither the plan nor a folder says which guest it is.
    """
    plan, broken = _plan(path)
    if plan is not None:
        return _status(folder or DEFAULT_FOLDER / plan.guest.name, now, plan=plan, plan_path=path)
    if folder is None:
        folder = DEFAULT_FOLDER / path.stem
        if not is_job(folder):
            plan_file.load(path)
    return _status(folder, now, plan_path=path, plan_broken=broken)


def of_folder(folder: Path, now: float | None = None) -> JobStatus:
    """The status of the job in a folder; the plan is where the job remembers it."""
    return _status(folder, now)


def all_below(parent: Path, now: float | None = None) -> tuple[JobStatus, ...]:
    """Every job in a folder, the most urgent first. Raises Usage where it cannot be listed."""
    try:
        folders = sorted(each for each in parent.iterdir() if is_job(each))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise Usage(parent, f"cannot be listed: {error.strerror}", "name another with --job-dir") from error
    found = [_status(folder, now) for folder in folders]
    return tuple(sorted(found, key=lambda each: (each.standing.situation.urgency, each.found.guest)))


def is_job(folder: Path) -> bool:
    """Whether it is the folder of a job, or one that nobody may look into."""
    try:
        return folder.is_dir() and any(os.path.lexists(folder / name) for name in _OF_A_JOB)
    except OSError:
        return True


def _status(
    folder: Path,
    now: float | None,
    *,
    plan: Plan | None = None,
    plan_path: Path | None = None,
    plan_broken: Broken | None = None,
) -> JobStatus:
    now = time.time() if now is None else now
    state, of_state = _kept(folder, "state.json", JobState, job.FORMAT)
    content, of_journal = _kept(folder, journal.FILE, Content, journal.FORMAT)
    memory, of_memory = _kept(folder, invocation.FILE, Invocation, invocation.FORMAT)
    holder, of_lock = _holder(folder)
    if plan_path is None and memory is not None:
        plan_path = Path(memory.plan)
        plan, plan_broken = _plan(plan_path)
    broken = [each for each in (of_journal, of_state, plan_broken, of_memory, of_lock) if each is not None]
    guest = plan.guest.name if plan else content.guest if content else folder.absolute().name
    found = FoundJob(
        guest=shown(guest),
        plan=None if plan_path is None else os.path.abspath(plan_path),  # noqa: PTH100 - links stay
        target=_disk(plan, state),
        job_dir=None if folder == DEFAULT_FOLDER / guest else str(folder.absolute()),
        state=state,
        journal=content,
        torn=send_back_mark.is_torn(folder),
        holder=holder,
        broken=tuple(broken),
        xml=_xml(folder),
    )
    if memory is not None:
        found = replace(found, command=memory.command, directory=memory.directory)
    outlook = None if state is None else standing.outlook(state)
    seconds = None if state is None else standing.predicted(state, now)
    return JobStatus(folder, found, standing.of(found, now), outlook, seconds)


def _disk(plan: Plan | None, state: JobState | None) -> str | None:
    """The plan's disk, spelled as the state has it where it speaks of the same one."""
    if plan is None:
        return None
    return state.target if state is not None and job.is_about(state, plan) else plan.disk.path


def _plan(path: Path) -> tuple[Plan | None, Broken | None]:
    try:
        if not path.exists():
            return None, Broken("plan", f"{path} is not there", "name it: `xen2kvm status PLAN.toml`")
        return plan_file.load(path), None
    except (BlocksyncError, OSError, ValueError) as error:
        cause = error.cause if isinstance(error, BlocksyncError) else str(error)
        return None, Broken(
            "plan", f"{path} {shown(cause)}", "correct it, or make it again with `xen2kvm plan`"
        )


def _kept(folder: Path, name: str, kind: type[Kept], reads: int) -> tuple[Kept | None, Broken | None]:
    """A file of the job: what it says, or what is wrong with it; neither where there is none."""
    way_out = _WAYS_OUT[name]
    try:
        raw = _content(folder / name)
    except FileNotFoundError:
        return None, None
    except (OSError, BlocksyncError, ValueError) as error:
        return None, Broken(name, _why(error), way_out)
    if not raw.strip():
        return None, Broken(name, "is empty", way_out)
    try:
        written = msgspec.json.decode(raw, type=_Head).format
        if written != reads:
            return None, Broken(name, f"has format {written}, this version reads {reads}", way_out)
        return msgspec.json.decode(raw, type=kind), None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return None, Broken(name, f"is damaged: {shown(str(error))}", way_out)


class _Head(msgspec.Struct, frozen=True):
    """What is read of a file first."""

    format: int = 1


def _content(path: Path) -> bytes:
    """The bytes of a regular file, 16 MiB at most. Raises OSError, Usage and ValueError."""
    with own_files.opened(path, os.O_RDONLY, "a job's file") as fd, open(fd, "rb", closefd=False) as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise Usage(path, "is larger than 16 MiB")
    return raw


def _why(error: BlocksyncError | OSError | ValueError) -> str:
    if isinstance(error, BlocksyncError):
        return error.cause
    return f"cannot be read: {why(error)}"


def _holder(folder: Path) -> tuple[GuestPlace | None, Broken | None]:
    """The process that the lock names, if it has it open: taking the lock ourselves would be in the way."""
    lock = folder / "lock"
    try:
        text = _content(lock).strip()
    except FileNotFoundError:
        return None, None
    except (OSError, BlocksyncError, ValueError) as error:
        return None, Broken("lock", _why(error), _WAYS_OUT["lock"])
    if not text:
        # A command that takes the job at this moment, or was killed then.
        return None, None
    if not (text.isdigit() and len(text) < 20):
        return None, Broken("lock", f"names no process: {shown_bytes(text, 40)}", _WAYS_OUT["lock"])
    return _process(int(text), lock), None


def _process(pid: int, lock: Path) -> GuestPlace | None:
    try:
        if not any(each.samefile(lock) for each in _descriptors(pid)):
            return None
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    own = [n for n, word in enumerate(words) if word.endswith(b"xen2kvm")]
    return GuestPlace(pid, shown_bytes(b" ".join([b"xen2kvm", *words[own[-1] + 1 :]])) if own else "")


def _descriptors(pid: int) -> Iterator[Path]:
    for each in Path(f"/proc/{pid}/fd").iterdir():
        # One that was closed meanwhile is none.
        with suppress(OSError):
            if each.exists():
                yield each


def _xml(folder: Path) -> str | None:
    """Where the latest cutover put the domain's XML."""
    try:
        latest = max(folder.glob("report-*.json"), default=None)
        report: Any = None if latest is None else msgspec.json.decode(_content(latest))
        xml = report["xml"] if isinstance(report, dict) else None
        return os.path.abspath(xml) if isinstance(xml, str) else None  # noqa: PTH100 - links stay
    except (OSError, BlocksyncError, ValueError, KeyError, msgspec.MsgspecError, RecursionError):
        return None
