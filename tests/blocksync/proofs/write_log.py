"""What a pass did to its files, call by call, and what a crash after any of these calls may leave of it.

The model is what POSIX allows and file systems do: a write, a punched hole or a new length is certain once a
later fsync of that file was acknowledged; until then each sector of it may or may not be there. What an fsync
reported as failed may never get there, whatever later calls say. A name that was made or moved is certain
once its folder was flushed; until then the names may be as they were before any number of the last moves.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from errno import EINTR
from os import O_CREAT, O_TRUNC
from pathlib import Path
from random import Random

SECTOR = 512
# FALLOC_FL_KEEP_SIZE with FALLOC_FL_PUNCH_HOLE or FALLOC_FL_ZERO_RANGE: the range reads as zeros.
ZEROING = (0x03, 0x11)

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One call. `data` is what was written, or the paths; `inode` the file's, 0 where there is none."""

    call: str
    role: str
    inode: int
    offset: int
    asked: int
    result: int
    errno: int
    data: bytes = field(repr=False)


def parse(log: Path) -> list[Event]:
    """The events in the interposer's log, in the order of their effects."""
    raw = log.read_bytes()
    events, at = [], 0
    while at < len(raw):
        end = raw.index(b"\n", at)
        call, role, *numbers = raw[at:end].decode().split()
        inode, offset, asked, result, errno, length = map(int, numbers)
        at = end + 1 + length
        data = raw[end + 1 : at]
        events.append(
            Event(
                call=call,
                role=role,
                inode=inode,
                offset=offset,
                asked=asked,
                result=result,
                errno=errno,
                data=data,
            )
        )
    return events


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a file's content: bytes at an offset, or (`data` None) a new length."""

    offset: int
    data: bytes | None = field(repr=False)

    def sectors(self) -> Iterator["Change"]:
        """The parts of it that a crash may keep or lose each for itself."""
        if self.data is None:
            yield self
            return
        at = self.offset
        end = at + len(self.data)
        while at < end:
            stop = min(end, (at // SECTOR + 1) * SECTOR)
            yield Change(at, self.data[at - self.offset : stop - self.offset])
            at = stop


def apply(content: bytearray, changes: Iterable[Change]) -> bytearray:
    for change in changes:
        if change.data is None:
            del content[change.offset :]
            content.extend(bytes(change.offset - len(content)))
        else:
            content.extend(bytes(max(0, change.offset - len(content))))
            content[change.offset : change.offset + len(change.data)] = change.data
    return content


@dataclass(slots=True)
class _File:
    certain: bytearray
    pending: list[Change] = field(default_factory=list)
    # Written before an fsync that failed: readable until the crash, and never certain.
    doomed: list[Change] = field(default_factory=list)

    def flush(self, *, acknowledged: bool) -> None:
        if acknowledged:
            apply(self.certain, self.pending)
        else:
            self.doomed += self.pending
        self.pending = []


@dataclass(frozen=True, slots=True)
class _Move:
    """A name that appears (`file`) or goes (None), and those that go with it."""

    path: str
    file: _File | None
    gone: str = ""


Names = dict[str, _File]
Keep = Callable[[_File], Iterable[Change]]


class Disk:
    """The watched files as the calls so far leave them."""

    def __init__(self, files: Mapping[Path, bytes], folders: Iterable[Path]) -> None:
        """`files` that are there now and will be changed, with their bytes; `folders` that they are in."""
        self._folders = {folder.stat().st_ino: str(folder) for folder in folders}
        self._names = {str(path): _File(bytearray(content)) for path, content in files.items()}
        self._inodes = {path.stat().st_ino: self._names[str(path)] for path in files}
        self._moves: list[_Move] = []

    def carry_out(self, event: Event) -> None:
        """Let one call have its effect."""
        if event.call in ("fsync", "fdatasync"):
            self._flush(event)
        elif event.result >= 0 and event.role != "S":
            self._change(event)

    def _flush(self, event: Event) -> None:
        if event.errno == EINTR:
            # Interrupted, not failed: what was to be flushed is still to be flushed.
            return
        acknowledged = event.result >= 0
        if folder := self._folders.get(event.inode):
            flushed = [move for move in self._moves if str(Path(move.path).parent) == folder and acknowledged]
            self._names = _moved(self._names, flushed)
            self._moves = [move for move in self._moves if move not in flushed]
        else:
            self._inodes[event.inode].flush(acknowledged=acknowledged)

    def _change(self, event: Event) -> None:
        text = event.data.decode(errors="surrogateescape")
        match event.call:
            case "open":
                self._open(text, event)
            case "write" | "pwrite":
                self._inodes[event.inode].pending.append(Change(event.offset, event.data))
            case "ftruncate":
                self._inodes[event.inode].pending.append(Change(event.offset, None))
            case "fallocate":
                if int(text) not in ZEROING:
                    raise ValueError(f"fallocate mode {text} is not in the model")
                self._inodes[event.inode].pending.append(Change(event.offset, bytes(event.asked)))
            case "rename":
                old, new = text.split("\0")
                self._moves.append(_Move(new, self._now[old], old))
            case "link":
                old, new = text.split("\0")
                self._moves.append(_Move(new, self._now[old]))
            case "unlink":
                self._moves.append(_Move(text, None))

    @property
    def _now(self) -> Names:
        return _moved(self._names, self._moves)

    def _open(self, path: str, event: Event) -> None:
        if event.offset & O_CREAT and path not in self._now:
            # Numbers of files that are gone are given to new ones.
            self._inodes[event.inode] = _File(bytearray())
            self._moves.append(_Move(path, self._inodes[event.inode]))
        if event.offset & O_TRUNC:
            self._inodes[event.inode].pending.append(Change(0, None))

    def now(self) -> Files:
        """What the files hold as long as the machine stays up."""
        return _left(self._now, lambda file: [*file.doomed, *file.pending])

    def after_crash(self, random: Random) -> Iterator[Files]:
        """What a crash at this point may leave: the extremes, and one of the many states between them.

        Among the extremes: each file's writes lost while the others' arrived, with the last names.
        """
        for count in range(len(self._moves) + 1):
            names = _moved(self._names, self._moves[:count])
            yield _left(names, lambda file: [])
            yield _left(names, lambda file: file.pending)
            for lost in names.values():
                if lost.pending:
                    yield _left(names, lambda file, lost=lost: [] if file is lost else file.pending)
            yield _left(names, lambda file: _some(file.pending, random))


def _moved(names: Names, moves: Iterable[_Move]) -> Names:
    names = dict(names)
    for move in moves:
        names.pop(move.gone, None)
        names.pop(move.path, None)
        if move.file is not None:
            names[move.path] = move.file
    return names


def _left(names: Names, keep: Keep) -> Files:
    return {path: bytes(apply(bytearray(file.certain), keep(file))) for path, file in names.items()}


def _some(changes: list[Change], random: Random) -> list[Change]:
    share = random.random()
    return [sector for change in changes for sector in change.sectors() if random.random() < share]
