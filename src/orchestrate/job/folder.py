"""A job: the folder that remembers one guest's migration between commands.

It holds the digest tables of the volumes, the consoles of rehearsals, and `state.json`: whether passes
may still be made, or the target is a guest's disk already. One command at a time may hold it.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from blocksync import own_files
from blocksync.devices import device
from blocksync.devices.device import sync_folder
from blocksync.devices.identity import is_same
from blocksync.digests import digest_file
from blocksync.errors import BlocksyncError, Failed, Refused, Usage
from orchestrate.plan.model import Plan, Volume

DEFAULT_FOLDER = Path("/var/lib/xen2kvm")
FORMAT = 1
MOST_RECORDS = 100
_HOLDER = re.compile(rb"\s*[0-9]{0,10}\s*")

Count = Annotated[int, Meta(ge=0)]


class Phase(StrEnum):
    """Where a migration stands.

    PASSES: the target is as the engine left it. FINISHING: fix-ups are being written to it, and what is known
    of its bytes holds only beside those that the state names. HANDED_OVER: it is a guest's disk.
    """

    PASSES = "passes"
    FINISHING = "finishing"
    HANDED_OVER = "handed-over"


class PassRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a pass over all volumes did, in bytes and seconds.

    `at` is the moment whose content was copied, as seconds since 1970. `listed` says that only candidates
    were looked at; `why` says why everything was. `limit` bounded what was moved in a second.
    """

    at: float
    seconds: float
    looked_at: Count
    read: Count
    changed: Count
    written: Count
    source: Literal["snapshots", "volumes"]
    listed: bool = False
    why: str = ""
    limit: int | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A snapshot as LVM reported it when it was made (blocksync.changes.lvm.Volume)."""

    group: str
    name: str
    uuid: str
    size: int
    attributes: str
    origin: str
    pool: str
    tags: tuple[str, ...]


class JobState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `state.json`; `target` is the disk that it speaks of, and `disk` its identity
    (blocksync.devices.identity), by which it is known under another name.

    `moment` numbers the snapshots since which the candidates hold all that the target may lack, and
    `snapshots` are what they are in LVM, by the guest's device: another snapshot of the same name is not the
    moment. `proven` is the moment that was compared as a whole. `records` are the latest passes, in order.
    `repaired` is what fix-ups may have written to the target since the last pass: offset and length in bytes
    of its volume, by the guest's device; None where that is not known.
    """

    format: int = FORMAT
    target: str
    disk: str = ""
    phase: Phase = Phase.PASSES
    passes: Count = 0
    rehearsed: str | None = None
    moment: Count | None = None
    snapshots: dict[str, Snapshot] = {}
    proven: Count | None = None
    repaired: dict[str, tuple[tuple[Count, Count], ...]] | None = None
    records: tuple[PassRecord, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether the target was compared as a whole with the moment that it is said to equal."""
        return self.moment is not None and self.proven == self.moment

    @property
    def is_copy(self) -> bool:
        """Whether the target is what passes made of it, but for blocks that are known."""
        return self.phase is Phase.PASSES or (self.phase is Phase.FINISHING and self.repaired is not None)

    def with_pass(self, record: PassRecord) -> "JobState":
        """The state after one more pass."""
        records = (*self.records, record)[-MOST_RECORDS:]
        return msgspec.structs.replace(
            self, phase=Phase.PASSES, passes=self.passes + 1, records=records, repaired=None
        )

    def without_moment(self) -> "JobState":
        """The state when nothing is known of what the target lacks."""
        return msgspec.structs.replace(self, moment=None, snapshots={}, proven=None)


@dataclass(frozen=True, slots=True)
class Job:
    """An open job folder, locked by this process."""

    folder: Path
    plan: Plan

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    def state(self) -> JobState:
        """What is remembered; a new state where nothing is.

        Raises `Failed` for a state that is damaged or of another format, `Refused` (guard `other-target`)
        for one about another disk, however the two are spelled.
        """
        raw = own_files.read(self._state_file, "a job's state")
        if raw is None:
            return JobState(target=self.plan.disk.path)
        state = _decoded(raw, self._state_file)
        if not is_about(state, self.plan):
            raise Refused(
                self._state_file,
                f"is about {state.target}, the plan's disk is {self.plan.disk.path}",
                "name that disk in the plan, or another --job-dir for this one",
                guard="other-target",
            )
        return replace(state, target=self.plan.disk.path)

    def remember(self, state: JobState) -> None:
        """Make `state` durable, as one about the disk that the plan names now."""
        state = replace(state, disk=_disk_identity(self.plan))
        text = msgspec.json.format(msgspec.json.encode(state)) + b"\n"
        own_files.replace(self._state_file, text, "a job's state")

    def digests(self, volume: Volume) -> Path:
        """The digest file of a volume's partition."""
        return self.folder / f"{volume.device}.digests"

    def forget_digests(self) -> None:
        """Remove all that is claimed about the target's bytes, durably, before they change otherwise. What
        has the name of a digest file and is something else stays.
        """
        for path in self.folder.glob("*.digests"):
            if digest_file.is_one(path):
                path.unlink()
        sync_folder(self.folder)


@contextmanager
def opened(plan: Plan, folder: Path | None) -> Iterator[Job]:
    """The job of `plan`'s guest, in `folder` or below `DEFAULT_FOLDER`, locked until the block ends.

    What it holds tells of a guest's data: the folder is its owner's alone, and so is what is made meanwhile.
    Raises `Usage`, `Refused` where another command has it, or another user could exchange what is in it.
    """
    folder = (folder or DEFAULT_FOLDER / plan.guest.name).absolute()
    os.umask(0o077)
    own_files.require_safe_way(folder, "a job's folder")
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder))
        except OSError as error:
            raise Usage(
                folder, f"cannot hold the job: {error.strerror}", "name another with --job-dir"
            ) from error
        yield Job(folder, plan)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = folder / "lock"
    is_a_job = own_files.require_regular(lock, "a job's lock") is not None
    with own_files.opened(lock, os.O_RDWR | os.O_CREAT, "a job's lock") as fd:
        _take(fd, folder)
        if is_a_job:
            # Of a version that let everybody read it. Another folder is not ours to close.
            folder.chmod(0o700)
        yield fd


def is_about(state: JobState, plan: Plan) -> bool:
    """Whether a state speaks of the plan's disk, however each of them spells it."""
    if is_same(Path(state.target), plan.target):
        return True
    return bool(state.disk) and state.disk == _disk_identity(plan)


def _disk_identity(plan: Plan) -> str:
    """Empty where the disk is not there or cannot be looked at."""
    try:
        return device.measure(plan.target).identity
    except BlocksyncError:
        return ""


def _decoded(raw: bytes, path: Path) -> JobState:
    way_out = "if the target is no guest's disk yet, remove it and run `xen2kvm sync` again"
    try:
        state = msgspec.json.decode(raw, type=JobState)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed(path, f"is damaged: {error}", way_out) from error
    if state.format != FORMAT:
        raise Failed(path, f"has format {state.format}, this version reads {FORMAT}", "use a newer xen2kvm")
    return state


def _take(lock: int, folder: Path) -> None:
    holder = os.pread(lock, 64, 0)
    if not _HOLDER.fullmatch(holder):
        raise Usage(folder / "lock", "is not a lock of ours", "name another folder with --job-dir")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Refused(
            folder,
            f"is held by another xen2kvm, process {holder.decode().strip() or 'unknown'}",
            "wait for it, or end it",
            guard="job-lock",
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
