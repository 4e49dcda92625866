"""Where the bytes of a device really are: through loop devices, partitions and device-mapper, down to what
holds them.

Two ranges that are the same bytes under different names overlap here, and nowhere else.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blocksync.devices import loops
from blocksync.hosts import programs

SYSFS = Path("/sys")
SECTOR = 512
_FOR_EVER = 2**63

DmTable = Callable[[int, int], str]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes [start, end) of `base`: a device that nothing explains further, a file, or a thin volume."""

    base: str
    start: int
    end: int

    def overlaps(self, other: "Footprint") -> bool:
        return self.base == other.base and self.start < other.end and other.start < self.end


def of_path(path: Path, start: int, end: int) -> tuple[Footprint, ...]:
    """The footprints of bytes [start, end) of a block device or file."""
    status = path.stat()
    if path.is_block_device():
        number = os.major(status.st_rdev), os.minor(status.st_rdev)
        return tuple(of_block(number, start, end, SYSFS, dm_table))
    return (_of_file((status.st_dev, status.st_ino), start, end),)


def of_block(
    number: tuple[int, int], start: int, end: int, sysfs: Path, table: DmTable
) -> Iterator[Footprint]:
    """The footprints of bytes [start, end) of a block device, from a sysfs tree and `dmsetup table`."""
    node = node_of(number, sysfs)
    if backing := loops.backing(node):
        start, end = start + backing.offset, end + backing.offset
        if backing.is_block:
            yield from of_block(backing.number, start, end, sysfs, table)
        else:
            yield _of_file(backing.number, start, end)
    elif sector := text(node / "partition") and text(node / "start"):
        offset = int(sector) * SECTOR
        parent = number_of(text(node.resolve().parent / "dev"))
        yield from of_block(parent, start + offset, end + offset, sysfs, table)
    elif text(node / "dm/name"):
        yield from _of_mapped(number, start, end, sysfs, table)
    else:
        yield from _of_slaves(number, start, end, sysfs, table)


def chain(
    number: tuple[int, int], start: int, end: int, sysfs: Path = SYSFS
) -> Iterator[tuple[tuple[int, int] | None, Footprint]]:
    """A range of a block device, then the range that it is of another device, down to the last: each with
    its device's number, None for a file. Loop devices and partitions are looked through, and nothing else:
    of what is mapped otherwise it would have to be guessed which bytes are where.
    """
    node = node_of(number, sysfs)
    yield number, Footprint(f"device {number[0]}:{number[1]}", start, end)
    if backing := loops.backing(node):
        start, end = start + backing.offset, end + backing.offset
        if backing.is_block:
            yield from chain(backing.number, start, end, sysfs)
        else:
            yield None, _of_file(backing.number, start, end)
    elif sector := text(node / "partition") and text(node / "start"):
        offset = int(sector) * SECTOR
        parent = number_of(text(node.resolve().parent / "dev"))
        yield from chain(parent, start + offset, end + offset, sysfs)


def whole(number: tuple[int, int], sysfs: Path = SYSFS) -> Footprint:
    """Where all bytes of a block device are, at the end of its chain."""
    size = int(text(node_of(number, sysfs) / "size") or 0) * SECTOR
    return list(chain(number, 0, size, sysfs))[-1][1]


def of_file(number: tuple[int, int]) -> Footprint:
    """The bytes of a file (st_dev, inode), however many."""
    return _of_file(number, 0, _FOR_EVER)


def of_status(status: os.stat_result, sysfs: Path = SYSFS) -> Footprint:
    """The bytes of a file or block device of this status, at the end of its chain."""
    if stat.S_ISBLK(status.st_mode):
        return whole((os.major(status.st_rdev), os.minor(status.st_rdev)), sysfs)
    return of_file((status.st_dev, status.st_ino))


def dm_table(major: int, minor: int) -> str:
    """What `dmsetup table` says of one device; empty when it cannot be asked."""
    dmsetup = programs.look_up("dmsetup")
    if dmsetup is None:
        return ""
    argv = [dmsetup, "table", "--major", str(major), "--minor", str(minor)]
    return str(programs.run(argv, capture_output=True, text=True, check=False).stdout)


def _of_file(number: tuple[int, int], start: int, end: int) -> Footprint:
    return Footprint(f"file {number[0]}:{number[1]}", start, end)


def _of_mapped(
    number: tuple[int, int], start: int, end: int, sysfs: Path, table: DmTable
) -> Iterator[Footprint]:
    lines = [line.split() for line in table(*number).splitlines()]
    kinds = {fields[2] for fields in lines if len(fields) > 2}
    if kinds == {"thin"}:
        # Volumes of one pool share its data device, and no byte of it.
        yield Footprint(f"thin {lines[0][3]} {lines[0][4]}", start, end)
    elif kinds == {"linear"}:
        for fields in lines:
            yield from _of_linear(fields, start, end, sysfs, table)
    else:
        yield from _of_slaves(number, start, end, sysfs, table)


def _of_linear(fields: list[str], start: int, end: int, sysfs: Path, table: DmTable) -> Iterator[Footprint]:
    at, length, moved = int(fields[0]) * SECTOR, int(fields[1]) * SECTOR, int(fields[4]) * SECTOR
    low, high = max(start, at), min(end, at + length)
    if low < high:
        yield from of_block(number_of(fields[3]), low - at + moved, high - at + moved, sysfs, table)


def _of_slaves(
    number: tuple[int, int], start: int, end: int, sysfs: Path, table: DmTable
) -> Iterator[Footprint]:
    """The device itself, and all of what it is made of: which bytes are where is not known."""
    node = node_of(number, sysfs)
    yield Footprint(f"device {number[0]}:{number[1]}", start, end)
    for slave in sorted((node / "slaves").glob("*")):
        size = int(text(slave / "size") or 0) * SECTOR
        yield from of_block(number_of(text(slave / "dev")), 0, size, sysfs, table)


def node_of(device: tuple[int, int], sysfs: Path = SYSFS) -> Path:
    """A block device's folder in sysfs."""
    return sysfs / "dev/block" / f"{device[0]}:{device[1]}"


def number_of(told: str) -> tuple[int, int]:
    """MAJOR:MINOR as two numbers."""
    major, _, minor = told.partition(":")
    return int(major), int(minor)


def text(path: Path) -> str:
    """What a file of the kernel's says; empty when it is gone."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").strip()
    except OSError:
        return ""
