"""Where the bytes of a device really are: through loop devices, partitions and device-mapper, down to what
holds them.

Two ranges that are the same bytes under different names overlap here, and nowhere else.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
SECTOR = 512

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
    return (Footprint(f"file {status.st_dev}:{status.st_ino}", start, end),)


def of_block(
    number: tuple[int, int], start: int, end: int, sysfs: Path, table: DmTable
) -> Iterator[Footprint]:
    """The footprints of bytes [start, end) of a block device, from a sysfs tree and `dmsetup table`."""
    node = sysfs / "dev/block" / f"{number[0]}:{number[1]}"
    if backing := _text(node / "loop/backing_file"):
        yield from _of_loop(node, Path(backing), start, end)
    elif sector := _text(node / "partition") and _text(node / "start"):
        offset = int(sector) * SECTOR
        parent = _number(_text(node.resolve().parent / "dev"))
        yield from of_block(parent, start + offset, end + offset, sysfs, table)
    elif _text(node / "dm/name"):
        yield from _of_mapped(number, start, end, sysfs, table)
    else:
        yield from _of_slaves(number, start, end, sysfs, table)


def dm_table(major: int, minor: int) -> str:
    """What `dmsetup table` says of one device; empty when it cannot be asked."""
    import subprocess  # noqa: PLC0415

    argv = ["dmsetup", "table", "--major", str(major), "--minor", str(minor)]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def _of_loop(node: Path, backing: Path, start: int, end: int) -> Iterator[Footprint]:
    offset = int(_text(node / "loop/offset") or 0)
    try:
        yield from of_path(backing, start + offset, end + offset)
    except OSError:
        # The file was deleted: only this device still leads to it.
        yield Footprint(f"device {node.name}", start, end)


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
        yield from of_block(_number(fields[3]), low - at + moved, high - at + moved, sysfs, table)


def _of_slaves(
    number: tuple[int, int], start: int, end: int, sysfs: Path, table: DmTable
) -> Iterator[Footprint]:
    """The device itself, and all of what it is made of: which bytes are where is not known."""
    node = sysfs / "dev/block" / f"{number[0]}:{number[1]}"
    yield Footprint(f"device {number[0]}:{number[1]}", start, end)
    for slave in sorted((node / "slaves").glob("*")):
        size = int(_text(slave / "size") or 0) * SECTOR
        yield from of_block(_number(_text(slave / "dev")), 0, size, sysfs, table)


def _number(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
