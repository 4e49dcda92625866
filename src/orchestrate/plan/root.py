"""Which volume holds the guest's root file system: what was asked for or configured, else what files say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from blocksync.errors import Failed, Refused, Usage
from blocksync.foreign import shown
from orchestrate.guest.facts import Facts, GuestVolume
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups import fstab
from orchestrate.plan import arguments
from orchestrate.plan.compose import MOUNTABLE, FoundVolume, guest_volume
from orchestrate.xen.guest import XenGuest

GUARD = "no-root"
_T = TypeVar("_T")
_MARKS = (
    ("/sbin", "init"),
    ("/usr/sbin", "init"),
    ("/etc", "os-release"),
    ("/etc", "inittab"),
    ("/etc", "passwd"),
)


@dataclass(frozen=True, slots=True)
class Root:
    """The guest's name of the root volume; `why` is a sentence where nobody named it."""

    device: str
    why: str | None = None


def find(
    xen: XenGuest,
    found: Sequence[FoundVolume],
    files: Callable[[FoundVolume], Reading],
    wanted: str | None = None,
) -> Root:
    """The root volume. `wanted` is what the operator named, `files` shows the files of one volume alone.

    Raises `Usage` or `Refused`, which name the volumes that can hold a root.
    """
    facts = Facts(volumes=tuple(guest_volume(volume, 0) for volume in found))
    if wanted is not None:
        return Root(
            _required(f"--root {wanted}", _named(wanted, facts), found, "is none of the guest's devices")
        )
    if xen.root is not None and (named := _named(xen.root, facts)) is not None:
        return Root(_required(f"{xen.source}: root={shown(xen.root, 80)}", named, found, ""))
    return _looked_for(xen, found, facts, files)


def _named(text: str, facts: Facts) -> GuestVolume | None:
    return fstab.volume_named(text, facts) or facts.volume(text)


def _required(thing: str, named: GuestVolume | None, found: Sequence[FoundVolume], cause: str) -> str:
    """The device of `named`, which has to be able to hold a root."""
    fitting = _fitting(found)
    if named is None:
        devices = ", ".join(volume.device for volume in found)
        raise Usage(thing, cause, f"it has {devices}; a root can be on {_names(fitting)}")
    if named.filesystem in MOUNTABLE:
        return named.device
    holds = "no known file system" if named.filesystem == "unknown" else named.filesystem
    raise Refused(
        thing, f"names {named.device}, which holds {holds}: that is no root", _way_out(fitting), guard=GUARD
    )


def _looked_for(
    xen: XenGuest, found: Sequence[FoundVolume], facts: Facts, files: Callable[[FoundVolume], Reading]
) -> Root:
    fitting = _fitting(found)
    unset = "no root= is set" if xen.root is None else f"root={shown(xen.root, 80)} names none of its disks"
    read = {volume.device: files(volume) for volume in fitting}
    for look in (_by_menu, _by_fstab, _by_marks):
        votes = {device: why for volume in fitting for device, why in look(xen, volume, read, facts)}
        if len(votes) == 1:
            device, why = votes.popitem()
            return Root(device, f"{xen.source}: {unset}; {device} is taken for the root, because {why}")
    if len(fitting) == 1:
        device = fitting[0].device
        return Root(device, f"{xen.source}: {unset}; {device} is taken for the root, because no other can be")
    raise Refused(xen.source, f"{unset}, and its volumes do not tell", _way_out(fitting), guard=GUARD)


def _by_menu(
    xen: XenGuest, volume: FoundVolume, read: dict[str, Reading], facts: Facts
) -> list[tuple[str, str]]:
    """The volume that the menu of a boot loader names."""
    entry = _quietly(lambda: arguments.booted(xen, read[volume.device]))
    named = _named(entry.root, facts) if entry is not None and entry.root else None
    if entry is None or named is None or named.device not in read:
        return []
    return [(named.device, f"the guest's own menu says so ({entry.path} of {volume.device})")]


def _by_fstab(
    xen: XenGuest, volume: FoundVolume, read: dict[str, Reading], facts: Facts
) -> list[tuple[str, str]]:
    """The volume whose own fstab mounts it at /."""
    del xen
    content = _quietly(lambda: read[volume.device].read(fstab.PATH)) or b""
    roots = [_named(entry.device, facts) for entry in fstab.mountpoints(content) if entry.mountpoint == "/"]
    is_own = any(root is not None and root.device == volume.device for root in roots)
    return [(volume.device, "its own fstab mounts it at /")] if is_own else []


def _by_marks(
    xen: XenGuest, volume: FoundVolume, read: dict[str, Reading], facts: Facts
) -> list[tuple[str, str]]:
    """A volume that looks like a system."""
    del xen, facts
    guest = read[volume.device]
    looks = _quietly(lambda: any(name in guest.names(folder) for folder, name in _MARKS))
    return [(volume.device, "no other volume holds a system's files")] if looks else []


def _quietly(look: Callable[[], _T]) -> _T | None:
    """What `look` finds; nothing in a volume that cannot be read: of that the plan complains elsewhere."""
    try:
        return look()
    except Failed:
        return None


def _fitting(found: Sequence[FoundVolume]) -> list[FoundVolume]:
    return [volume for volume in found if volume.signature.filesystem in MOUNTABLE]


def _names(volumes: Sequence[FoundVolume]) -> str:
    return ", ".join(volume.device for volume in volumes) or "none of its volumes"


def _way_out(fitting: Sequence[FoundVolume]) -> str:
    if not fitting:
        return "none of its volumes can hold a root: see what the configuration names"
    return f"say which: {' or '.join(f'--root {volume.device}' for volume in fitting)}"
