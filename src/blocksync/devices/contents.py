"""What a range of bytes holds, as far as its first and last bytes tell: formats of whole files that libblkid
does not know. And whether it holds anything at all.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocksync.devices.device import Opened, read_opened
from blocksync.errors import telling

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

HEAD = 4096
TAIL = 512
_PIECE = 4 * 2**20

Told = Callable[[int], None]
"""Is told how many bytes were looked at."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format by its marks, all of which it has: bytes at an offset, from the range's end where negative."""

    name: str
    marks: tuple[tuple[int, bytes], ...]

    def fits(self, head: bytes, tail: bytes) -> bool:
        return all(
            (head[offset:] if offset >= 0 else tail[offset:]).startswith(mark) for offset, mark in self.marks
        )


def _starting(name: str, *starts: bytes, at: int = 0) -> tuple[Format, ...]:
    return tuple(Format(name, ((at, start),)) for start in starts)


FORMATS = (
    # Images of disks.
    *_starting("qcow2", b"QFI\xfb"),
    *_starting("qed", b"QED\0"),
    *_starting("vmdk", b"KDMV", b"COWD", b"# Disk DescriptorFile"),
    *_starting("vhd", b"conectix"),
    *_starting("vhd", b"conectix", at=-512),
    *_starting("vhdx", b"vhdxfile"),
    *_starting("vdi", b"\x7f\x10\xda\xbe", at=64),
    *_starting("parallels", b"WithoutFreeSpace", b"WithouFreSpacExt"),
    *_starting("bochs", b"Bochs Virtual HD Image"),
    *_starting("cloop", b"#!/bin/sh\n#V2.0 Format\n"),
    *_starting("dmg", b"koly", at=-512),
    *_starting("wim", b"MSWIM\0\0\0"),
    *_starting("ewf", b"EVF\x09\x0d\x0a\xff\0", b"EVF2\r\n\x81\0"),
    *_starting("aff", b"AFF10\r\n\0"),
    *_starting("android-sparse", b"\x3a\xff\x26\xed"),
    # What backs up disks and guests.
    *_starting("vma", b"VMA\0"),
    *_starting("partclone", b"partclone-image"),
    *_starting("ntfsclone", b"\0ntfsclone-image"),
    *_starting("fsarchiver", b"FsArCh_"),
    *_starting("rbd-export", b"rbd image v", b"rbd diff v"),
    *_starting("btrfs-send", b"btrfs-stream\0"),
    *_starting("zfs-send", b"\xac\xcb\xba\xf5\x02\0\0\0", at=8),
    *_starting("xfsdump", b"xFSdump0"),
    *_starting("dump", b"\x6b\xea\0\0", b"\x6c\xea\0\0", b"\0\0\xea\x6b", b"\0\0\xea\x6c", at=24),
    *_starting("libvirt-save", b"LibvirtQemudSave", b"LibvirtQemudPart"),
    *_starting("xen-save", b"LinuxGuestRecord", b"Xenlight Saved Domain"),
    *_starting("vm-state", b"QEVM"),
    *_starting("blocksync-digests", b"BSDIGEST"),
    # What is encrypted. libblkid knows LUKS, if not every header of it.
    *_starting("luks", b"LUKS\xba\xbe", b"SKUL\xba\xbe"),
    *_starting("bitlocker", b"-FVE-FS-", at=3),
    # Archives.
    *_starting("tar", b"ustar", at=257),
    *_starting("cpio", b"070701", b"070702", b"070707"),
    *_starting("zip", b"PK\3\4", b"PK\5\6", b"PK\7\x08"),
    *_starting("7z", b"7z\xbc\xaf\x27\x1c"),
    *_starting("rar", b"Rar!\x1a\7"),
    *_starting("xar", b"xar!\0"),
    *_starting("ar", b"!<arch>\n"),
    *_starting("rpm", b"\xed\xab\xee\xdb"),
    *_starting("cabinet", b"MSCF\0\0\0\0"),
    *_starting("borg", b"BORG_SEG"),
    # What is compressed.
    *_starting("gzip", b"\x1f\x8b\x08"),
    Format("bzip2", ((0, b"BZh"), (4, b"1AY&SY"))),
    *_starting("xz", b"\xfd7zXZ\0"),
    *_starting("zstd", b"\x28\xb5\x2f\xfd"),
    *_starting("lz4", b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"),
    *_starting("lzop", b"\x89LZO\0\r\n\x1a\n"),
    *_starting("lzip", b"LZIP\1"),
    *_starting("lrzip", b"LRZI"),
    # Single files.
    *_starting("sqlite", b"SQLite format 3\0"),
    *_starting("elf", b"\x7fELF"),
    *_starting("pdf", b"%PDF-"),
    *_starting("pgp", b"-----BEGIN PGP"),
)


def recognised(opened: Opened, offset: int, size: int) -> str | None:
    """The format of a range, given in bytes, which must be inside the device. Raises Failed."""
    head = read_opened(opened, offset, min(size, HEAD))
    tail = read_opened(opened, offset + size - min(size, TAIL), min(size, TAIL))
    return name_of(head, tail)


def name_of(head: bytes, tail: bytes = b"") -> str | None:
    """The format that first and last bytes are of; None for none that is known."""
    whole = tail.rjust(TAIL, b"\0")
    return next((each.name for each in FORMATS if each.fits(head, whole)), None)


def first_data(opened: Opened, offset: int, size: int, told: Told) -> int | None:
    """Where the first byte of a range is that is not zero, as an offset on the device; None where all are.

    Reads all of it but for a file's holes, past the page cache where the device is open so. `told` hears
    after each piece how much of the range was looked at. Raises Failed.
    """
    import numpy as np  # noqa: PLC0415 (a pass has no need of it)

    # An anonymous map is page-aligned, which direct I/O needs of its memory.
    with mmap.mmap(-1, _PIECE + 2 * opened.align) as pages:
        for start, end in _pieces(opened, offset, offset + size):
            from_ = start // opened.align * opened.align
            length = -(-end // opened.align) * opened.align - from_
            _fill(opened, pages, from_, length, end - from_)
            found = _first_nonzero(np.frombuffer(pages, np.uint8, end - start, start - from_))
            if found is not None:
                return start + found
            told(end - offset)
    return None


def _first_nonzero(piece: "npt.NDArray[np.uint8]") -> int | None:
    return int((piece != 0).argmax()) if piece.any() else None


def _pieces(opened: Opened, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        start = start if opened.device.is_block else _next_data(opened, start, end)
        stop = min(end, start // _PIECE * _PIECE + _PIECE)
        if start < stop:
            yield start, stop
        start = stop


def _next_data(opened: Opened, start: int, end: int) -> int:
    """Where a file has its next bytes, which may be zeros."""
    try:
        return min(end, os.lseek(opened.fd, start, os.SEEK_DATA))
    except OSError:
        # ENXIO: there are none. A file system that knows no holes has all of it.
        return end if _knows_holes(opened) else start


def _knows_holes(opened: Opened) -> bool:
    try:
        os.lseek(opened.fd, 0, os.SEEK_HOLE)
    except OSError:
        return False
    return True


def _fill(opened: Opened, pages: mmap.mmap, start: int, length: int, needed: int) -> None:
    got = 0
    with memoryview(pages) as view, telling(opened.device.path, f"cannot be read at byte {start}"):
        while got < needed:
            with view[got:length] as rest:
                count = os.preadv(opened.fd, [rest], start + got)
            if count == 0:
                raise OSError(0, "it ends there")
            got += count
