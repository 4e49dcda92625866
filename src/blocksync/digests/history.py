"""Whether a target was written since a digest file was committed, and by whom.

A stamp says how much was written to a target so far: it changes with every write, whoever writes. A digest
file keeps the stamp of its commit; when the target still has it, nothing was written since. Several passes
may keep digest files about different ranges of one target: each pass that wrote leaves a line in a history
beside its digest file, so that the others can tell its writes, which are outside their ranges, from those of
strangers. It leaves one before its first write as well: of a pass that is killed the others then know where
it wrote, if not what stamp it left.
"""

import os
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path

from blocksync import own_files
from blocksync._copy import xxh3_128
from blocksync.devices.device import Opened, flush
from blocksync.errors import Usage

SYSFS = Path("/sys")
BOOT = Path("/proc/sys/kernel/random/boot_id")
LONGEST = 1000
WHAT = "a history"
_PIECE = 2**16
UNKNOWN = "?"
"""In the place of the stamp after a pass, while it is under way. No stamp is this."""

# Sectors written and discarded in /sys/block/*/stat (Documentation/block/stat.rst). Requests are no measure:
# a flush counts as a write of no sectors.
_WRITTEN = (6, 13)


class Trust(IntEnum):
    """How far the writes to a target are accounted for. LIKELY: a pass was killed, and whatever stamp was
    found after it is taken for the one that it left.
    """

    NONE = 0
    LIKELY = 1
    CERTAIN = 2


@dataclass(frozen=True, slots=True)
class Written:
    """One pass took a target from stamp `before` to stamp `after`, writing only in a range (in bytes). While
    it has not ended, `after` is UNKNOWN.
    """

    before: str
    after: str
    offset: int
    size: int

    def to_line(self) -> str:
        body = f"{self.before} {self.after} {self.offset} {self.size}"
        return f"{body} {xxh3_128(body.encode()).hex()}"

    @classmethod
    def from_line(cls, line: str) -> "Written | None":
        """None for a line that is torn."""
        body, _, checksum = line.rpartition(" ")
        if xxh3_128(body.encode()).hex() != checksum:
            return None
        before, after, offset, size = body.split(" ")
        return cls(before, after, int(offset), int(size))

    def spares(self, offset: int, size: int) -> bool:
        """Whether it wrote nothing in a range."""
        return self.offset + self.size <= offset or offset + size <= self.offset


def stamp(opened: Opened) -> str:
    """What changes with every write to a target, without spaces. Flushes, so that no write is still to come.

    Of a file, its times of modification and change. Of a block device, what the kernel counted as written to
    its disk since boot; after a reboot the stamp is another one. Raises Failed.
    """
    flush(opened)
    if not opened.device.is_block:
        status = os.fstat(opened.fd)
        return f"{status.st_mtime_ns}/{status.st_ctime_ns}"
    major, minor = opened.device.number
    node = SYSFS / "dev/block" / f"{major}:{minor}"
    # Writes through the whole disk's node are not counted for a partition, but the other way round.
    disk = node.resolve().parent if (node / "partition").exists() else node
    counts = (disk / "stat").read_text().split()
    written = "/".join(counts[field] for field in _WRITTEN if field < len(counts))
    return f"{BOOT.read_text().strip()}/{_text(disk / 'diskseq')}/{written}"


def path_of(digests: Path, target_identity: str) -> Path:
    """The history of a target, in the folder of the digest files about it."""
    return digests.with_name(f".{xxh3_128(target_identity.encode('utf-8', 'surrogateescape')).hex()}.passes")


def explains(path: Path, then: str, now: str, offset: int, size: int) -> Trust:
    """How far the history accounts for every write between two stamps; NONE also if any was in a range."""
    trust = Trust.CERTAIN
    for written, following in pairwise([*_read(path), None]):
        if then == now:
            break
        if written is None or written.before != then or not written.spares(offset, size):
            continue
        # What a pass that did not end has left is what the next one found.
        after = now if following is None else following.before
        if written.after != UNKNOWN:
            then = written.after
        elif after != then:
            then, trust = after, Trust.LIKELY
    return trust if then == now else Trust.NONE


def append(path: Path, written: Written) -> None:
    """Add a line, durably. Raises OSError, Usage and Failed."""
    lines = [*_read(path), written]
    if len(lines) > LONGEST or own_files.require_regular(path, WHAT) is None:
        kept = "".join(f"{line.to_line()}\n" for line in lines[-LONGEST // 2 :])
        own_files.replace(path, kept.encode(), WHAT)
        return
    with own_files.opened(path, os.O_RDWR, WHAT) as fd:
        # A line that a crash cut short must not run into this one.
        own_files.write_fully(fd, f"\n{written.to_line()}\n".encode(), os.fstat(fd).st_size)
        os.fsync(fd)


def _read(path: Path) -> list[Written]:
    try:
        with own_files.opened(path, os.O_RDONLY, WHAT) as fd:
            text = b"".join(iter(lambda: os.read(fd, _PIECE), b"")).decode(errors="replace")
    except (OSError, Usage):
        return []
    return [written for line in text.splitlines() if (written := Written.from_line(line))]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
