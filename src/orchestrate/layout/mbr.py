"""The MBR partition table as bytes.

Format: bytes 440 to 443 disk signature, 446 to 509 four entries of 16 bytes, 510 and 511 `55 aa`.
The first 440 bytes are boot code and do not belong to the table.
"""

import struct
from uuid import UUID

from orchestrate.layout.table import SECTOR, Partition, PartitionKind, Table

TABLE_OFFSET = 440
_TYPES = {
    PartitionKind.LINUX: 0x83,
    PartitionKind.SWAP: 0x82,
    PartitionKind.LVM: 0x8E,
    PartitionKind.RAID: 0xFD,
}
_HEADS, _SECTORS = 255, 63


def encode(table: Table) -> tuple[tuple[int, bytes], ...]:
    """The table as one (offset, bytes) range: the last 72 bytes of sector 0."""
    signature = UUID(table.identity).bytes[:4]
    entries = {part.number: _entry(part) for part in table.partitions}
    slots = b"".join(entries.get(number, bytes(16)) for number in range(1, 5))
    return ((TABLE_OFFSET, signature + bytes(2) + slots + b"\x55\xaa"),)


def _entry(part: Partition) -> bytes:
    first, count = part.offset // SECTOR, part.size // SECTOR
    return struct.pack(
        "<B3sB3sII",
        0x80 if part.bootable else 0,
        chs(first),
        _TYPES[part.kind],
        chs(first + count - 1),
        first,
        count,
    )


def chs(sector: int) -> bytes:
    """Cylinder, head and sector of a sector number, for 255 heads and 63 sectors; fe ff ff where it ends."""
    cylinder, rest = divmod(sector, _HEADS * _SECTORS)
    if cylinder > 1023:
        return b"\xfe\xff\xff"
    head, offset = divmod(rest, _SECTORS)
    return bytes((head, (offset + 1) | (cylinder >> 2 & 0xC0), cylinder & 0xFF))
