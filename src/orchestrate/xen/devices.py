"""Virtual block devices: the names and numbers a guest knows its disks by.

Rules: xen-vbd-interface(7) for xvd, dNpM and the numbers; the Linux device list (devices.txt) for the
majors of hd and sd. Disks count from 0, partitions from 1.
"""

import re
from dataclasses import dataclass

from orchestrate.xen.values import TextPosition

_WAY_OUT = "name it as the guest sees it, such as xvda, xvda2, sda1 or hda1"

# Disks and partitions a bus has names for; xl refuses what lies beyond.
_BUSES = {"xvd": (1 << 20, 255), "sd": (16, 15), "hd": (4, 63)}

_XVD_MAJOR = 202
_SCSI_MAJORS = (8, *range(65, 72), *range(128, 136))
_IDE_MAJORS = (3, 22, 33, 34, 56, 57, 88, 89, 90, 91)
_EXTENDED = 1 << 28

_NAME = re.compile(r"(xvd|sd|hd)([a-z]{1,5})([1-9][0-9]{0,2})?")
_DISK_AND_PARTITION = re.compile(r"d([0-9]{1,7})p([0-9]{1,3})")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|0|[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class VirtualDevice:
    """A disk (`partition` None) or one partition of it, on the bus `xvd`, `sd` or `hd`."""

    bus: str
    disk: int
    partition: int | None

    @property
    def name(self) -> str:
        """The name in the guest, without /dev/: xvda2."""
        return f"{self.bus}{_letters(self.disk)}{self.partition or ''}"


def virtual_device(text: str, place: TextPosition) -> VirtualDevice:
    """Read `xvda2`, `/dev/sda1`, `d0p1` (partition 0: the disk), or a number such as 0xca02.

    Raises `Usage` about `place` for anything else, and for disks or partitions a bus has no name for.
    """
    device = _read(text.strip().removeprefix("/dev/"))
    if device is None:
        raise place.wrong(f"{text[:40]!r} is not a virtual device", _WAY_OUT)
    disks, partitions = _BUSES[device.bus]
    if device.disk >= disks or (device.partition or 0) > partitions:
        raise place.wrong(f"{text[:40]!r} lies beyond what {device.bus} devices are numbered to", _WAY_OUT)
    return device


def is_name(text: str) -> bool:
    """Whether `text` is the guest's name of a device: `xvda2`, and neither a number nor a path."""
    return _NAME.fullmatch(text) is not None


def is_virtual_device(text: str) -> bool:
    """Whether `text` has the form of a virtual device."""
    return _read(text) is not None


def is_foreign_number(text: str) -> bool:
    """Whether `text` is a device number whose major belongs to no disk that Xen knows.

    libxl names such a device by its lower byte; Linux guests leave it out.
    """
    if not _NUMBER.fullmatch(text.strip()):
        return False
    number = int(text, 0)
    return number < _EXTENDED and number >> 8 not in (_XVD_MAJOR, *_SCSI_MAJORS, *_IDE_MAJORS)


def _read(text: str) -> VirtualDevice | None:
    if named := _NAME.fullmatch(text):
        return VirtualDevice(named[1], _index(named[2]), int(named[3]) if named[3] else None)
    if counted := _DISK_AND_PARTITION.fullmatch(text):
        return VirtualDevice("xvd", int(counted[1]), int(counted[2]) or None)
    if _NUMBER.fullmatch(text):
        return _numbered(int(text, 0))
    return None


def _numbered(number: int) -> VirtualDevice | None:
    if number >= 2 * _EXTENDED:
        return None
    if number >= _EXTENDED:
        disk, partition = divmod(number - _EXTENDED, 256)
        return VirtualDevice("xvd", disk, partition or None)
    major, minor = divmod(number, 256)
    if major in _IDE_MAJORS:
        disk, partition = divmod(minor, 64)
        return VirtualDevice("hd", _IDE_MAJORS.index(major) * 2 + disk, partition or None)
    disk, partition = divmod(minor, 16)
    if major in _SCSI_MAJORS:
        return VirtualDevice("sd", _SCSI_MAJORS.index(major) * 16 + disk, partition or None)
    return VirtualDevice("xvd", disk, partition or None)


def _index(letters: str) -> int:
    """a is 0, z is 25, aa is 26."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _letters(index: int) -> str:
    letters = ""
    while index >= 0:
        index, rest = divmod(index, 26)
        letters = chr(ord("a") + rest) + letters
        index -= 1
    return letters
