"""A job: the folder that remembers one guest's migration between commands.

It holds the digest tables of the volumes, the consoles of rehearsals, and `state.json`: whether passes
may still be made, or the target is a guest's disk already. One command at a time may hold it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from blocksync.devices import sync_folder
from blocksync.errors import Failed, Refused, Usage
from orchestrate.plan.file import write
from orchestrate.plan.model import Plan, Volume

DEFAULT_FOLDER = Path("/var/lib/xen2kvm")
FORMAT = 1
MOST_RECORDS = 100


class Phase(StrEnum):
    """Where a migration stands.

    PASSES: the target is as the engine left it. FINISHING: fix-ups are being written to it, so nothing
    known about its bytes holds. HANDED_OVER: it is a guest's disk.
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
    looked_at: int
    read: int
    changed: int
    written: int
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


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `state.json`; `target` is the disk that it speaks of.

    `moment` numbers the snapshots since which the candidates hold all that the target may lack, and
    `snapshots` are what they are in LVM, by the guest's device: another snapshot of the same name is not the
    moment. `proven` is the moment that was compared as a whole. `records` are the latest passes, in order.
    """

    format: int = FORMAT
    target: str
    phase: Phase = Phase.PASSES
    passes: int = 0
    rehearsed: str | None = None
    moment: int | None = None
    snapshots: dict[str, Snapshot] = {}
    proven: int | None = None
    records: tuple[PassRecord, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether the target was compared as a whole with the moment that it is said to equal."""
        return self.moment is not None and self.proven == self.moment

    def with_pass(self, record: PassRecord) -> "State":
        """The state after one more pass."""
        records = (*self.records, record)[-MOST_RECORDS:]
        return msgspec.structs.replace(self, phase=Phase.PASSES, passes=self.passes + 1, records=records)

    def without_moment(self) -> "State":
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

    def state(self) -> State:
        """What is remembered; a new state where nothing is, or where it speaks of another target."""
        try:
            raw = self._state_file.read_bytes()
        except FileNotFoundError:
            return State(target=self.plan.disk.path)
        except OSError as error:
            raise Failed(self._state_file, f"cannot be read: {error.strerror}") from error
        try:
            state = msgspec.json.decode(raw, type=State)
        except msgspec.DecodeError as error:
            raise Failed(
                self._state_file,
                f"is damaged: {error}",
                "if the target is no guest's disk yet, remove it and run `xen2kvm sync` again",
            ) from error
        return state if state.target == self.plan.disk.path else State(target=self.plan.disk.path)

    def remember(self, state: State) -> None:
        """Make `state` durable."""
        write(self._state_file, msgspec.json.format(msgspec.json.encode(state)).decode() + "\n")

    def digests(self, volume: Volume) -> Path:
        """The digest file of a volume's partition."""
        return self.folder / f"{volume.device}.digests"

    def forget_digests(self) -> None:
        """Remove all that is claimed about the target's bytes, durably, before they change otherwise."""
        for path in self.folder.glob("*.digests"):
            path.unlink()
        sync_folder(self.folder)

    def require_passes(self, command: str) -> State:
        """The state, if the target may be written by passes; `Refused` once it is a guest's disk."""
        state = self.state()
        if state.phase is Phase.HANDED_OVER:
            raise Refused(
                self.plan.disk.path,
                f"is the disk of a KVM guest since the cutover of {self.plan.guest.name}",
                f"`xen2kvm {command} --again` goes back to passes and re-reads the target",
                guard="handed-over",
            )
        return state


@contextmanager
def opened(plan: Plan, folder: Path | None) -> Iterator[Job]:
    """The job of `plan`'s guest, in `folder` or below `DEFAULT_FOLDER`, locked until the block ends."""
    folder = folder or DEFAULT_FOLDER / plan.guest.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Usage(
            folder, f"cannot hold the job: {error.strerror}", "name another with --job-dir"
        ) from error
    try:
        _take(lock, folder)
        yield Job(folder, plan)
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise Refused(
            folder,
            f"is held by another xen2kvm, process {holder}",
            "wait for it, or end it",
            guard="job-lock",
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
