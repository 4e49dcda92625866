"""The GUID partition table as bytes (UEFI specification 2.10, section 5)."""

import struct
import zlib
from uuid import UUID, uuid5

from orchestrate.layout.mbr import TABLE_OFFSET
from orchestrate.layout.table import SECTOR, Partition, PartitionKind, Table, usable

_TYPES = {
    PartitionKind.LINUX: UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"),
    PartitionKind.SWAP: UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"),
    PartitionKind.LVM: UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"),
    PartitionKind.RAID: UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"),
    PartitionKind.BIOS_BOOT: UUID("21686148-6449-6e6f-744e-656564454649"),
}
_ENTRIES = 128
_LEGACY_BOOTABLE = 1 << 2


def encode(table: Table) -> tuple[tuple[int, bytes], ...]:
    """The table as (offset, bytes) ranges, in the order in which they should be written.

    The backup comes first and the protective MBR last: a writer that stops between two ranges leaves
    a disk without a table, never one whose table lies.
    """
    sectors = table.size // SECTOR
    entries = _entries(table)
    backup_entries = sectors - 33
    return (
        (backup_entries * SECTOR, entries),
        ((sectors - 1) * SECTOR, _header(table, entries, mine=sectors - 1, other=1, at=backup_entries)),
        (2 * SECTOR, entries),
        (SECTOR, _header(table, entries, mine=1, other=sectors - 1, at=2)),
        (TABLE_OFFSET, _protective(sectors)),
    )


def partition_identity(table: Table, number: int) -> UUID:
    """The PARTUUID of a partition: derived from the disk's, so that a plan made again is the same plan."""
    return uuid5(UUID(table.identity), f"partition {number}")


def _entries(table: Table) -> bytes:
    by_number = {part.number: _entry(table, part) for part in table.partitions}
    return b"".join(by_number.get(number, bytes(128)) for number in range(1, _ENTRIES + 1))


def _entry(table: Table, part: Partition) -> bytes:
    return struct.pack(
        "<16s16sQQQ72s",
        _TYPES[part.kind].bytes_le,
        partition_identity(table, part.number).bytes_le,
        part.offset // SECTOR,
        part.end // SECTOR - 1,
        _LEGACY_BOOTABLE if part.bootable else 0,
        b"",
    )


def _header(table: Table, entries: bytes, *, mine: int, other: int, at: int) -> bytes:
    first, last = usable(table.kind, table.size)
    identity = UUID(table.identity).bytes_le

    def pack(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART",
            0x00010000,
            92,
            checksum,
            0,
            mine,
            other,
            first // SECTOR,
            last // SECTOR - 1,
            identity,
            at,
            _ENTRIES,
            128,
            zlib.crc32(entries),
        )

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def _protective(sectors: int) -> bytes:
    entry = struct.pack("<B3sB3sII", 0, b"\0\x02\0", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 2**32 - 1))
    return bytes(6) + entry + bytes(48) + b"\x55\xaa"
