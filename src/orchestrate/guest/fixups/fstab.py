"""/etc/fstab: volumes by UUID instead of by Xen's device names.

Source for the format: fstab(5), with its octal escapes for blanks.
"""

import re
from dataclasses import dataclass

from orchestrate.guest.facts import Facts, GuestVolume
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies, rewritten
from orchestrate.guest.files.reading import Reading

NAME = "fstab"
REASON = "fstab names volumes by UUID, because /dev/xvda2 has another name under KVM and a UUID has not"

PATH = "/etc/fstab"
_FIELD = re.compile(r"[^ \t]+")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_CDROM = re.compile(r"/dev/(?:cdrom|cdrw|dvd|scd|sr|xvd|hd|sd)[a-z0-9]*")
_OPTICAL = frozenset({"iso9660", "udf", "udf,iso9660", "iso9660,udf"})
_FIRST_FIELDS = 3


@dataclass(frozen=True, slots=True)
class FstabEntry:
    """A line of fstab. `device` is as written, `mountpoint` without escapes ("none" for swap)."""

    device: str
    mountpoint: str
    filesystem: str
    options: tuple[str, ...]
    dump: str
    check: str


def mountpoints(content: bytes) -> tuple[FstabEntry, ...]:
    """The entries of an fstab, in order. Lines with fewer than three fields are none."""
    entries = []
    for body in bodies(content):
        fields = _fields(body)
        if len(fields) >= _FIRST_FIELDS:
            device, mountpoint, filesystem, options, dump, check = (*fields, "defaults", "0", "0")[:6]
            names = tuple(options.split(","))
            entries.append(FstabEntry(device, _unescaped(mountpoint), filesystem, names, dump, check))
    return tuple(entries)


def volume_of(entry: FstabEntry, facts: Facts) -> GuestVolume | None:
    """The guest's volume that `entry` mounts, by device name, UUID= or LABEL=; None when it is not one."""
    return volume_named(entry.device, facts)


def volume_named(device: str, facts: Facts) -> GuestVolume | None:
    """The volume that a device field means: a device name, UUID=, LABEL=, /dev/disk/by-uuid or by-label."""
    kind, _, value = (
        device.replace("/dev/disk/by-uuid/", "UUID=").replace("/dev/disk/by-label/", "LABEL=").partition("=")
    )
    value = _unescaped(value.strip("\"'"))
    if kind == "UUID" and value:
        found = [volume for volume in facts.volumes if (volume.uuid or "").lower() == value.lower()]
    elif kind == "LABEL" and value:
        found = [volume for volume in facts.volumes if volume.label == value]
    else:
        return facts.volume(device) if device.startswith("/dev/") else None
    return found[0] if len(found) == 1 else None


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Device names become UUID=, and PARTUUID= where it is known what it means; lines for what only the Xen
    guest had (a CD-ROM, xenfs) go.
    """
    before = guest.read(PATH)
    if before is None:
        return ()
    after = rewritten(before, lambda line: _line(line, facts))
    return (Edit(PATH, after, REASON),) if after != before else ()


def _line(line: str, facts: Facts) -> str | None:
    fields = _fields(line)
    if len(fields) < _FIRST_FIELDS:
        return line
    device, mountpoint, filesystem = fields[:3]
    # Where Xen is not, mounting xenfs fails, and systemd stops at a prompt for maintenance.
    if filesystem == "xenfs":
        return None
    volume = facts.volume(device) if device.startswith("/dev/") else None
    if volume is None and (mountpoint == "/" or filesystem == "swap"):
        volume = facts.meant(device, "root" if mountpoint == "/" else "swap")
    if volume is not None:
        return line.replace(device, facts.lasting_name(volume), 1)
    if filesystem in _OPTICAL and _CDROM.fullmatch(device):
        return None
    return line


def _fields(line: str) -> list[str]:
    fields = _FIELD.findall(line)
    return [] if fields and fields[0].startswith("#") else fields


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
