"""Does a disk carry its planned table already, none, or another one? Pure: the caller reads the bytes."""

from collections.abc import Iterable
from enum import Enum

from orchestrate.layout import gpt, mbr
from orchestrate.layout.table import Table, TableKind


class Presence(Enum):
    """`ABSENT` also stands for a table whose writing was interrupted: its ranges are ours or zero."""

    SAME = "same"
    ABSENT = "absent"
    DIFFERENT = "different"


def encode(table: Table) -> tuple[tuple[int, bytes], ...]:
    """The table's (offset, bytes) ranges, in writing order."""
    return mbr.encode(table) if table.kind is TableKind.MBR else gpt.encode(table)


def filled(table: Table) -> tuple[tuple[int, int, str], ...]:
    """The ranges besides the table that passes and fix-ups write: offset and size in bytes, and a name."""
    area = table.boot_area
    parts = ((part.offset, part.size, f"partition {part.number}") for part in table.partitions)
    return ((area.offset, area.size, "the boot area"), *parts)


def compare(found: Iterable[tuple[bytes, bytes]]) -> Presence:
    """Judge pairs of (planned bytes, bytes on the disk)."""
    pairs = tuple(found)
    if all(planned == there for planned, there in pairs):
        return Presence.SAME
    if all(planned == there or not any(there) for planned, there in pairs):
        return Presence.ABSENT
    return Presence.DIFFERENT
