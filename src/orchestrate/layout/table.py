"""The data of a partition table, and the rules that every table keeps.

Offsets and sizes are in bytes, as everywhere in this project; tables on disk count sectors of 512 bytes.
The guest sees 512-byte sectors whatever the host's device has, because that is what QEMU's virtio-blk
shows unless told otherwise.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from blocksync.errors import Usage

SECTOR = 512
MIB = 1024 * 1024


def align_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


class TableKind(StrEnum):
    """The two partition table formats."""

    MBR = "mbr"
    GPT = "gpt"


class PartitionKind(StrEnum):
    """What a partition holds; each table format has its own code for it."""

    LINUX = "linux"
    SWAP = "swap"
    LVM = "lvm"
    RAID = "raid"
    BIOS_BOOT = "bios-boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition: `number` as the guest's kernel will count it, `offset` and `size` in bytes."""

    number: int
    offset: int
    size: int
    kind: PartitionKind
    bootable: bool = False

    @property
    def end(self) -> int:
        """Byte offset of the first byte behind the partition."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class BootArea:
    """Where the boot loader's core image lies: bytes that belong to no file system."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A whole disk: its size in bytes, its identity, its partitions in the order of their offsets.

    `identity` is a UUID text; MBR keeps its first 32 bits as the disk signature.
    """

    kind: TableKind
    size: int
    identity: str
    partitions: tuple[Partition, ...]
    boot_area: BootArea


def check(table: Table, thing: object) -> None:
    """Raise `Usage`, naming `thing`, if the table's parts overlap, leave the disk or are misaligned."""
    way_out = "correct the numbers by hand, or make the plan again with `xen2kvm plan`"
    numbers = [part.number for part in table.partitions]
    if len(set(numbers)) != len(numbers):
        raise Usage(thing, "two partitions have the same number", way_out)
    highest = 4 if table.kind is TableKind.MBR else 128
    for part in table.partitions:
        name = f"partition {part.number}"
        if not 1 <= part.number <= highest:
            raise Usage(thing, f"{name}: an {table.kind} table has numbers 1 to {highest}", way_out)
        if part.offset % SECTOR or part.size % SECTOR or part.size <= 0:
            raise Usage(thing, f"{name}: offset and size are whole sectors of 512 bytes", way_out)
        if table.kind is TableKind.MBR and part.end > (2**32 - 1) * SECTOR:
            raise Usage(thing, f"{name} ends behind 2 TiB, where an MBR cannot point", "use --table gpt")
    _check_room(table, thing, way_out)


def _check_room(table: Table, thing: object, way_out: str) -> None:
    first, last = usable(table.kind, table.size)
    spans = [(part.offset, part.end, f"partition {part.number}") for part in table.partitions]
    in_own_partition = any(part.kind is PartitionKind.BIOS_BOOT for part in table.partitions)
    if not in_own_partition:
        area = table.boot_area
        spans.append((area.offset, area.offset + area.size, "the boot area"))
    spans.sort()
    for begin, end, name in spans:
        if begin < first or end > last:
            raise Usage(thing, f"{name} lies outside the disk's usable bytes {first} to {last}", way_out)
    for (_, end, name), (begin, _, other) in pairwise(spans):
        if begin < end:
            raise Usage(thing, f"{name} and {other} overlap", way_out)


def usable(kind: TableKind, size: int) -> tuple[int, int]:
    """First usable byte and the byte behind the last usable one on a disk of `size` bytes.

    A GPT keeps 34 sectors at the start and 33 at the end (UEFI specification 2.10, section 5.3).
    """
    if kind is TableKind.MBR:
        return SECTOR, size
    return 34 * SECTOR, size // SECTOR * SECTOR - 33 * SECTOR
