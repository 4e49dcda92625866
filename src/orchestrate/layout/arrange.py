"""From a guest's volumes to partitions: numbers, offsets and the boot loader's place. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blocksync.errors import Usage
from orchestrate.layout.table import (
    MIB,
    SECTOR,
    BootArea,
    Partition,
    PartitionKind,
    Table,
    TableKind,
    align_up,
    check,
    usable,
)

FIRST_SECTORS = (2048, 63, 32)
# GRUB's core image with everything needed to find a kernel by UUID is 110 KiB or so; a smaller gap
# in front of the first partition (DOS-compatible tables) cannot hold it.
BOOT_AREA_WANTED = 256 * 1024
_MBR_REACH = 2**32 * SECTOR


@dataclass(frozen=True, slots=True)
class Layout:
    """A table, and the partition number that each demand got, in the demands' order."""

    table: Table
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a volume asks of the layout: its wished partition number (None: any), its size in bytes."""

    number: int | None
    size: int
    kind: PartitionKind
    bootable: bool = False


def assign_numbers(wished: Sequence[int | None], *, highest: int = 128) -> tuple[int, ...]:
    """A number for each wish, in order: the wish where it is free, else the lowest number nobody wished."""
    taken: dict[int, int] = {}
    for index, wish in enumerate(wished):
        if wish is not None and 1 <= wish <= highest and wish not in taken:
            taken[wish] = index
    given = {index: number for number, index in taken.items()}
    free = (number for number in range(1, len(wished) + highest + 1) if number not in taken)
    return tuple(given[index] if index in given else next(free) for index in range(len(wished)))


def choose_kind(numbers: Iterable[int], total: int) -> TableKind:
    """MBR where it can hold the partitions (four, below 2 TiB), because every old guest knows it."""
    return TableKind.MBR if max(numbers) <= 4 and total < _MBR_REACH - 2 * MIB else TableKind.GPT


def arrange(
    demands: Sequence[Demand],
    *,
    identity: str,
    kind: TableKind | None = None,
    first_sector: int = 2048,
    disk_size: int | None = None,
) -> Layout:
    """The table for `demands`.

    `disk_size` is the size in bytes of a target that exists; None makes the disk as large as needed.
    Raises `Usage` when they do not fit.
    """
    if not demands:
        raise Usage("layout", "there is no volume to make a partition of")
    highest = 4 if kind is TableKind.MBR else 128
    numbers = assign_numbers([demand.number for demand in demands], highest=highest)
    kind = kind or choose_kind(numbers, sum(demand.size for demand in demands))
    _refuse_first_sector(kind, first_sector)
    partitions, end = _place(demands, numbers, first_sector)
    partitions, area, end = _boot_area(kind, partitions, first_sector * SECTOR, end)
    needed = align_up(end + (33 * SECTOR if kind is TableKind.GPT else 0), MIB)
    size = _disk_size(kind, needed, end, disk_size)
    table = Table(kind=kind, size=size, identity=identity, partitions=partitions, boot_area=area)
    check(table, "layout")
    return Layout(table, numbers)


def _refuse_first_sector(kind: TableKind, first_sector: int) -> None:
    if first_sector not in FIRST_SECTORS:
        known = ", ".join(str(sector) for sector in FIRST_SECTORS)
        raise Usage(
            "--first-sector", f"{first_sector} is not one of {known}", "2048 suits all but old DOS layouts"
        )
    if kind is TableKind.GPT and first_sector * SECTOR < usable(kind, MIB)[0]:
        raise Usage(
            "--first-sector",
            f"a GPT occupies sector {first_sector} itself",
            "use --first-sector 2048, or an MBR",
        )


def _place(
    demands: Sequence[Demand], numbers: Sequence[int], first_sector: int
) -> tuple[tuple[Partition, ...], int]:
    """Partitions in the order of their numbers, the first at `first_sector`, the others at whole MiB."""
    offset = first_sector * SECTOR
    placed = []
    for number, demand in sorted(zip(numbers, demands, strict=True), key=lambda pair: pair[0]):
        size = align_up(demand.size, SECTOR)
        placed.append(
            Partition(number=number, offset=offset, size=size, kind=demand.kind, bootable=demand.bootable)
        )
        offset = align_up(offset + size, MIB)
    return tuple(placed), placed[-1].end


def _boot_area(
    kind: TableKind, partitions: tuple[Partition, ...], first: int, end: int
) -> tuple[tuple[Partition, ...], BootArea, int]:
    """The gap in front of the first partition if GRUB fits there, else a MiB behind the last one."""
    gap = usable(kind, MIB)[0]
    if first - gap >= BOOT_AREA_WANTED:
        area = BootArea(offset=gap, size=first - gap)
    else:
        area = BootArea(offset=align_up(end, MIB), size=MIB)
        end = area.offset + area.size
    if kind is TableKind.MBR:
        return partitions, area, end
    boot = Partition(
        number=assign_numbers([part.number for part in partitions] + [None])[-1],
        offset=area.offset,
        size=area.size,
        kind=PartitionKind.BIOS_BOOT,
    )
    return tuple(sorted((*partitions, boot), key=lambda part: part.offset)), area, end


def _disk_size(kind: TableKind, needed: int, end: int, disk_size: int | None) -> int:
    if disk_size is None:
        return needed
    if end > usable(kind, disk_size)[1]:
        raise Usage(
            "target",
            f"it has {disk_size} bytes, the volumes and their table need {needed}",
            f"make it {needed // MIB} MiB, e.g. `lvextend -L {needed // MIB}M TARGET`",
        )
    return disk_size
