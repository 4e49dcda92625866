"""Where GRUB's boot code goes on the disk: sector 0 in front of the table, and the boot area. Pure.

Format: GRUB's boot.img holds the sector number of core.img as u64 at 0x5c, the BIOS drive at 0x64 (0xff:
the one booted from) and a jump at 0x66 that is made two no-ops for hard disks whose BIOS reports drive 0.
The first sector of core.img ends with the block list of the rest: start u64, sectors u16, segment u16 at
0x1f4 (GRUB 2.06, include/grub/i386/pc/boot.h, and a disk written by grub-install compared byte by byte).
"""

import struct

from blocksync.errors import Refused
from orchestrate.layout import mark
from orchestrate.layout.mbr import TABLE_OFFSET
from orchestrate.layout.table import SECTOR, BootArea, align_up

_CORE_SECTOR_AT, _DRIVE_AT, _DRIVE_CHECK_AT = 0x5C, 0x64, 0x66
_BLOCK_LIST_AT, _LOAD_SEGMENT = 0x1F4, 0x820


def place(boot: bytes, core: bytes, area: BootArea) -> tuple[tuple[int, bytes], ...]:
    """The (offset, bytes) ranges that make a disk boot: core.img into `area`, then sector 0's 440 bytes.

    Raises `Refused` where the core image is larger than the area.
    """
    room = mark.place(area) - area.offset
    if len(core) > room:
        raise Refused(
            "boot area",
            f"GRUB needs {len(core)} bytes, {room} are free at byte {area.offset}",
            "make the plan again with --first-sector 2048, or on a larger target",
            guard="boot-area",
        )
    return (area.offset, _core(core, area)), (0, _boot(boot, area))


def _boot(boot: bytes, area: BootArea) -> bytes:
    code = bytearray(boot[:TABLE_OFFSET])
    struct.pack_into("<Q", code, _CORE_SECTOR_AT, area.offset // SECTOR)
    code[_DRIVE_AT] = 0xFF
    code[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + 2] = b"\x90\x90"
    return bytes(code)


def _core(core: bytes, area: BootArea) -> bytes:
    image = bytearray(core.ljust(align_up(len(core), SECTOR), b"\0"))
    rest = len(image) // SECTOR - 1
    struct.pack_into("<QHH", image, _BLOCK_LIST_AT, area.offset // SECTOR + 1, rest, _LOAD_SEGMENT)
    return bytes(image)
