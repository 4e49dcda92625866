"""The mark on a disk that was handed over to a guest: one sector at the end of the boot area. Pure.

The boot area belongs to no file system, and GRUB's images never reach its last sector: not ours, and not one
that grub-install puts there later (at most twice its size, 440 KiB). So whatever becomes of a job's folder,
and by whatever name the disk is called, it tells itself that passes may not write to it any more.

Format, 512 bytes, integers little-endian: bytes 0 to 7 `X2KGUEST`; 8 u32 version, 1; 12 u64 when it was
handed over, in seconds since 1970; 20 to 35 the cutover, drawn at random; 36 u16 length of the guest's name,
at most 400; 38 the name in UTF-8; zeros; 496 XXH3-128 of the 496 bytes before it.
"""

import struct
from dataclasses import dataclass

from blocksync._copy import xxh3_128
from orchestrate.layout.table import SECTOR, BootArea

_MAGIC, _VERSION = b"X2KGUEST", 1
_HEAD = struct.Struct("<8sIQ16sH")
_CHECKSUM_AT = SECTOR - 16
_MOST_NAME = 400

NONE = bytes(SECTOR)
"""What is written where a mark goes."""


@dataclass(frozen=True, slots=True)
class HandoverMark:
    """Whose disk it is, since when (seconds since 1970), and by which cutover (32 hexadecimal digits)."""

    guest: str
    since: int
    cutover: str

    def pack(self) -> bytes:
        """The sector."""
        name = self.guest.encode()[:_MOST_NAME]
        head = _HEAD.pack(_MAGIC, _VERSION, self.since, bytes.fromhex(self.cutover), len(name))
        body = (head + name).ljust(_CHECKSUM_AT, b"\0")
        return body + xxh3_128(body)


UNREADABLE = HandoverMark("an unknown guest", 0, "")
"""A sector that begins as a mark and cannot be read: it is taken for one."""


def place(area: BootArea) -> int:
    """The byte offset of the mark's sector on the disk."""
    return area.offset + area.size - SECTOR


def unpack(sector: bytes) -> HandoverMark | None:
    """The mark in a sector, None where there is none."""
    if not sector.startswith(_MAGIC):
        return None
    if xxh3_128(sector[:_CHECKSUM_AT]) != sector[_CHECKSUM_AT:]:
        return UNREADABLE
    _, _, since, cutover, length = _HEAD.unpack_from(sector)
    name = sector[_HEAD.size : _HEAD.size + min(length, _MOST_NAME)]
    return HandoverMark(name.decode(errors="replace"), since, cutover.hex())
