"""The journal of a cutover: `journal.json` in the job's folder, durable before each step goes on.

It says which side the guest belongs to, when it was stopped, what has to be put back (autostart links), and
each step: begun, done or failed. It never says that a step may be left out: the hosts are asked what is true.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from blocksync import own_files
from blocksync.devices.identity import is_same
from blocksync.errors import Failed, Refused
from orchestrate.job.stopwatch import Step, Stopwatch

FILE = "journal.json"
FORMAT = 1

_LOOK = "find out on which side the guest runs; when it runs on Xen alone, move the file away"


class Owner(StrEnum):
    """The side that may start the guest. It becomes KVM just before the first start there."""

    XEN = "xen"
    KVM = "kvm"


class CutoverStatus(StrEnum):
    """BEGUN and nothing after it: the command was killed in this step."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


class Closed(StrEnum):
    """How a cutover ended."""

    DONE = "done"
    ROLLED_BACK = "rolled-back"
    FINISHED = "finished"


class _JournalPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the journal's parts."""


class JournalEntry(_JournalPart, frozen=True, kw_only=True):
    """A step: when it began (UTC, ISO 8601), the seconds that it took, what went wrong."""

    step: str
    status: CutoverStatus
    begun: str
    seconds: float | None = None
    cause: str | None = None


class MovedLink(_JournalPart, frozen=True, kw_only=True):
    """An autostart link that was taken away on the Xen host."""

    path: str
    target: str


class Content(_JournalPart, frozen=True, kw_only=True):
    """The content of `journal.json`. Times in seconds since 1970, None while it has not come to that.

    `stopped`: when the guest was asked to stop on Xen. `serving`: when it was first seen to serve on KVM.
    `handed_over`: the target is proven and repaired, and only the start on KVM is left. `console_from`: where
    this start begins in the console's log, in bytes. `proofs`: what was proven of each volume. `accepted`:
    the guards that the operator goes on in spite of. `cutover` is what the mark on the disk names, empty
    before there is one.
    """

    format: int = FORMAT
    guest: str
    target: str
    owner: Owner = Owner.XEN
    stopped: float | None = None
    serving: float | None = None
    handed_over: bool = False
    console_from: int = 0
    proofs: dict[str, str] = {}
    accepted: tuple[str, ...] = ()
    cutover: str = ""
    autostart: tuple[MovedLink, ...] = ()
    closed: Closed | None = None
    steps: tuple[JournalEntry, ...] = ()


@dataclass(slots=True)
class Journal:
    """An open journal; only the holder of the job writes it."""

    folder: Path
    content: Content
    exists: bool = False

    def note(self, **changes: Any) -> None:
        """Change fields of the content, durably."""
        self.content = replace(self.content, **changes)
        text = msgspec.json.format(msgspec.json.encode(self.content)) + b"\n"
        own_files.replace(self.folder / FILE, text, "a journal")
        self.exists = True

    def draw_cutover(self) -> None:
        """Draw what the mark on the disk is to name, durably."""
        self.note(cutover=secrets.token_hex(16))

    def start_anew(self) -> None:
        """A new cutover begins; what still has to be put back stays."""
        old = self.content
        self.content = Content(guest=old.guest, target=old.target, autostart=old.autostart)
        self.note()

    def begin(self, step: str) -> None:
        """A step begins."""
        begun = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        entry = JournalEntry(step=step, status=CutoverStatus.BEGUN, begun=begun)
        self.note(steps=(*self.content.steps, entry))

    def end(self, step: Step) -> None:
        """The last step that began under this name is done."""
        self._close(step.name, status=CutoverStatus.DONE, seconds=round(step.seconds, 3))

    def fail(self, cause: str) -> None:
        """What was begun by this command and is not done has failed."""
        if self.content.steps and self.content.steps[-1].status is CutoverStatus.BEGUN:
            self._close(self.content.steps[-1].step, status=CutoverStatus.FAILED, cause=cause)

    def watched(self, watch: Stopwatch) -> Stopwatch:
        """A stopwatch whose steps are journalled too; `watch` collects and shows them as before."""

        def begins(name: str) -> None:
            self.begin(name)
            watch.begins(name)

        def ends(step: Step) -> None:
            self.end(step)
            watch.ends(step)

        return Stopwatch(begins=begins, ends=ends, breaks=watch.breaks, tell=watch.tell, steps=watch.steps)

    def _close(self, name: str, **changes: Any) -> None:
        steps = list(self.content.steps)
        index = max(at for at, entry in enumerate(steps) if entry.step == name)
        steps[index] = replace(steps[index], **changes)
        self.note(steps=tuple(steps))


def read(folder: Path) -> Content | None:
    """What the journal of a job's folder says; None where there is none. Raises `Failed` if it is damaged."""
    path = folder / FILE
    raw = own_files.read(path, "a journal")
    if raw is None:
        return None
    try:
        content = msgspec.json.decode(raw, type=Content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed(path, f"is damaged: {error}", _LOOK) from error
    if content.format != FORMAT:
        raise Failed(path, f"has format {content.format}, this version reads {FORMAT}", _LOOK)
    return content


def read_about(folder: Path, guest: str, target: Path) -> Content | None:
    """As `read`. Raises `Refused` (guard `other-journal`) where it is about another guest or another disk."""
    found = read(folder)
    if found is not None and (found.guest != guest or not is_same(Path(found.target), target)):
        raise Refused(
            folder / FILE,
            f"is about {found.guest} on {found.target}",
            "name that plan, or another --job-dir",
            guard="other-journal",
        )
    return found


def opened(folder: Path, guest: str, target: Path) -> Journal:
    """The journal that stands in the folder, else a new one; nothing is written yet. As `read_about`."""
    found = read_about(folder, guest, target)
    if found is None:
        return Journal(folder, Content(guest=guest, target=str(target)))
    return Journal(folder, found, exists=True)
