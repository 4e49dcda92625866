"""From what was read and probed to a plan. Pure: the same findings give the same plan."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from uuid import NAMESPACE_URL, uuid5

from msgspec.structs import replace

from blocksync.errors import BlocksyncError, Refused, Usage
from blocksync.foreign import shown
from orchestrate.guest.boot import kernels
from orchestrate.guest.facts import Facts, GuestNic, GuestVolume
from orchestrate.guest.files.edit import Edit, Edited
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups import fstab, nic_names
from orchestrate.guest.fixups.fixup import ALL
from orchestrate.guest.network import addresses
from orchestrate.guest.volumes import VolumeContent
from orchestrate.layout.arrange import Demand, Layout, arrange
from orchestrate.layout.table import PartitionKind, Table, TableKind
from orchestrate.plan import arguments
from orchestrate.plan.fields import is_mountpoint
from orchestrate.plan.model import (
    FORMAT,
    Action,
    Boot,
    BootPlace,
    Disk,
    FixupChoice,
    Guest,
    Nic,
    Place,
    Plan,
    Volume,
    partition_kind,
)
from orchestrate.xen.guest import XenGuest

MOUNTABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})
UNKNOWN = "unknown"
OVERRIDABLE = frozenset({"unknown-filesystem"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVolume:
    """A configured volume as it was found: `device` is the guest's name, sizes in bytes."""

    device: str
    source: str
    path: str
    size: int
    signature: VolumeContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the operator asked of the layout. `name` is the guest's on KVM, where it is another; `disk_size`
    is that of a target that exists; `config` is where the Xen host has the guest's configuration.
    """

    disk: str
    name: str | None = None
    xen_host: str | None = None
    config: str | None = None
    disk_size: int | None = None
    table: TableKind | None = None
    first_sector: int = 2048
    overrides: frozenset[str] = frozenset()


def unfit(found: Sequence[FoundVolume], overrides: frozenset[str]) -> Iterator[BlocksyncError]:
    """What is against a plan: `Refused` for a volume that cannot become a partition as it is, `Usage` for an
    override that a plan does not know.
    """
    for name in sorted(overrides - OVERRIDABLE):
        yield Usage(
            f"--override {name}", "is no guard of a plan", f"one of: {', '.join(sorted(OVERRIDABLE))}"
        )
    for volume in found:
        thing = f"{volume.source} ({volume.device})"
        if volume.size == 0:
            yield Refused(
                thing, "is empty: it has no bytes to copy", "see what the guest keeps there", guard="empty"
            )
        elif volume.signature.table is not None:
            yield Refused(
                thing,
                f"holds a {volume.signature.table} partition table: it is a whole disk, not one file system",
                "a guest with whole disks needs no new table; copy it with `blocksync sync`",
                guard="whole-disk",
            )
        elif volume.signature.filesystem is None and "unknown-filesystem" not in overrides:
            yield Refused(
                thing,
                "holds no file system that blkid knows",
                "if its bytes are to be copied as they are: --override unknown-filesystem",
                guard="unknown-filesystem",
            )


def refuse_twins(found: Sequence[FoundVolume]) -> None:
    """Raise `Refused` for two volumes of one UUID: a boot loader and an fstab that go by it take either."""
    known: dict[tuple[str, str | None], FoundVolume] = {}
    for volume in found:
        signature = volume.signature
        if not signature.uuid:
            continue
        # What is one file system on several volumes has members.
        twin = known.setdefault((signature.uuid.lower(), signature.member), volume)
        if twin is not volume:
            raise Refused(
                f"{volume.source} ({volume.device})",
                f"has the UUID {signature.uuid}, as {twin.source} ({twin.device}) has: one is a copy",
                _NEW_UUID.get(signature.filesystem or "", "give one of them another UUID").format(volume.path)
                + ", while the guest is down; then correct its fstab",
                guard="uuid-twice",
            )


_NEW_UUID = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), "tune2fs -U random {}"),
    "xfs": "xfs_admin -U generate {}",
    "btrfs": "btrfstune -u {}",
    "swap": "swaplabel -U $(uuidgen) {}",
}


def refuse_unfit(found: Sequence[FoundVolume], overrides: frozenset[str]) -> None:
    """Raise the first error of `unfit`, if there is any."""
    for error in unfit(found, overrides):
        raise error


def guest_volume(volume: FoundVolume, number: int) -> GuestVolume:
    """The volume as fix-ups know it; `number` is its partition."""
    signature = volume.signature
    return GuestVolume(
        volume.device, number, signature.filesystem or UNKNOWN, signature.uuid, signature.label
    )


def mountpoints(found: Sequence[FoundVolume], root: str, guest: Reading) -> dict[str, str]:
    """Where the guest mounts its volumes, by device; from its fstab, with the root always at `/`."""
    facts = Facts(volumes=tuple(guest_volume(volume, 0) for volume in found))
    places = {root: "/"}
    for entry in fstab.mountpoints(guest.read(fstab.PATH) or b""):
        volume = fstab.volume_of(entry, facts)
        if volume is not None and is_mountpoint(place := _plain(entry.mountpoint)):
            places.setdefault(volume.device, place)
    return places


def _odd_mountpoints(found: Sequence[FoundVolume], guest: Reading) -> tuple[str, ...]:
    """What `mountpoints` passes over, as warnings."""
    facts = Facts(volumes=tuple(guest_volume(volume, 0) for volume in found))
    entries = fstab.mountpoints(guest.read(fstab.PATH) or b"")
    return tuple(
        f"{fstab.PATH} mounts {volume.device} at {shown(entry.mountpoint)!r}, which is no plain path: "
        "the volume is copied, and mounted nowhere for the fix-ups"
        for entry in entries
        if (volume := fstab.volume_of(entry, facts)) is not None
        and entry.mountpoint.startswith("/")
        and not is_mountpoint(_plain(entry.mountpoint))
    )


def _plain(path: str) -> str:
    """A mount point as it is mostly spelled; one that leads up or cannot be printed is none."""
    if not path.isprintable() or ".." in path.split("/"):
        return ""
    return "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else ""


def compose(
    xen: XenGuest, found: Sequence[FoundVolume], wishes: Wishes, *, root: str, reading: Reading
) -> tuple[Plan, tuple[str, ...]]:
    """The plan and its warnings. `reading` shows the guest's files with all its volumes in place."""
    refuse_unfit(found, wishes.overrides)
    usable_kernels = kernels.require(reading, xen.name)
    places = mountpoints(found, root, reading)
    layout = layout_of(xen, found, wishes, places, root)
    volumes = tuple(
        _volume(volume, number, layout.table, places.get(volume.device))
        for volume, number in zip(found, layout.numbers, strict=True)
    )
    nics, warnings = _nics(xen)
    plan = Plan(
        format=FORMAT,
        xen_host=wishes.xen_host,
        config=wishes.config,
        guest=_guest(xen, wishes.name),
        disk=_disk(layout.table, wishes.disk),
        boot=Boot(root=root, arguments=(), kernels=tuple(kernel.version for kernel in usable_kernels)),
        volume=tuple(sorted(volumes, key=lambda volume: volume.partition.number)),
        nic=nics,
    )
    plan = _with_nics_of_its_files(plan, reading)
    facts = facts_of(plan)
    given = arguments.chosen(xen, reading, facts, nic_names.kernel_arguments(reading, facts))
    plan = replace(plan, boot=replace(plan.boot, arguments=given.words))
    warnings += (*xen.left_behind, *given.left_behind, *nic_names.warnings(reading, facts, given.words))
    return _with_fixups(plan, reading), (*xen.warnings, *warnings, *_odd_mountpoints(found, reading))


def facts_of(plan: Plan) -> Facts:
    """What the fix-ups may know of the plan's guest."""
    return Facts(
        volumes=tuple(
            GuestVolume(
                device=volume.device,
                partition=volume.partition.number,
                filesystem=volume.filesystem,
                uuid=volume.uuid,
                label=volume.label,
            )
            for volume in plan.volume
        ),
        nics=tuple(GuestNic(mac=nic.mac, name=nic.name) for nic in plan.nic),
        root_device=plan.boot.root,
    )


def layout_of(
    xen: XenGuest, found: Sequence[FoundVolume], wishes: Wishes, places: Mapping[str, str], root: str
) -> Layout:
    """The partitions for the volumes. Raises `Usage` where they do not fit."""
    booting = next((device for device, place in places.items() if place == "/boot"), root)
    demands = [
        Demand(
            number=_own_number(volume.device),
            size=volume.size,
            kind=partition_kind(volume.signature.filesystem or UNKNOWN),
            bootable=volume.device == booting,
        )
        for volume in found
    ]
    return arrange(
        demands,
        # Derived, not random: the same guest planned again for the same disk is the same plan.
        identity=str(uuid5(NAMESPACE_URL, f"xen2kvm:{xen.name}:{wishes.disk}")),
        kind=wishes.table,
        first_sector=wishes.first_sector,
        disk_size=wishes.disk_size,
    )


def _own_number(device: str) -> int | None:
    """The partition number in the guest's device name; None for a whole-disk name such as xvda."""
    digits = re.search(r"[0-9]+$", device)
    return int(digits[0]) if digits else None


def _volume(found: FoundVolume, number: int, table: Table, mountpoint: str | None) -> Volume:
    part = next(part for part in table.partitions if part.number == number)
    signature = found.signature
    action, why = _action(signature, mountpoint)
    return Volume(
        device=found.device,
        source=found.source,
        path=found.path,
        size=found.size,
        filesystem=signature.filesystem or UNKNOWN,
        action=action,
        why=why,
        partition=Place(number=number, offset=part.offset, size=part.size),
        uuid=signature.uuid,
        label=signature.label,
        mountpoint=mountpoint,
    )


def _action(signature: VolumeContent, mountpoint: str | None) -> tuple[Action, str]:
    if signature.filesystem == "swap":
        return Action.RECREATE, "swap holds nothing to keep; it is made anew with the same UUID and label"
    if signature.filesystem is None:
        return Action.COPY, "its content is unknown and is copied byte by byte"
    if mountpoint:
        return Action.COPY, f"the guest mounts it at {mountpoint}"
    return Action.COPY, "holds data, though the guest's fstab does not mount it"


def _guest(xen: XenGuest, name: str | None) -> Guest:
    name = name or xen.name
    return Guest(
        name=name,
        xen_name=xen.name if xen.name != name else None,
        memory_mib=xen.memory_mib,
        vcpus=xen.vcpus,
        clock="localtime" if xen.localtime else "utc",
    )


def _disk(table: Table, path: str) -> Disk:
    boot = next((part for part in table.partitions if part.kind is PartitionKind.BIOS_BOOT), None)
    area = table.boot_area
    return Disk(
        path=path,
        size=table.size,
        table=table.kind,
        identity=table.identity,
        boot_area=BootPlace(offset=area.offset, size=area.size, number=boot.number if boot else None),
    )


def _nics(xen: XenGuest) -> tuple[tuple[Nic, ...], tuple[str, ...]]:
    nics, warnings = [], []
    for index, vif in enumerate(xen.vifs):
        mac = vif.mac
        if mac is None:
            mac = _made_up_mac(xen.name, index)
            warnings.append(f"vif {index} has no MAC in the configuration; {mac} was made up for it")
        nics.append(Nic(mac=mac, bridge=vif.bridge, addresses=vif.ips))
    return tuple(nics), tuple(warnings)


def _made_up_mac(name: str, index: int) -> str:
    """A MAC in Xen's range, always the same for the same guest and card."""
    digest = uuid5(NAMESPACE_URL, f"xen2kvm:{name}:vif{index}").bytes
    return "00:16:3e:" + ":".join(f"{byte:02x}" for byte in (digest[0] & 0x7F, digest[1], digest[2]))


def _with_nics_of_its_files(plan: Plan, reading: Reading) -> Plan:
    """What the guest calls its NICs, and the addresses that it gives them besides the configuration's."""
    facts = facts_of(plan)
    names = nic_names.names(reading, facts)
    found = addresses.configured(reading, facts)
    return replace(
        plan,
        nic=tuple(
            replace(nic, name=names.get(nic.mac), addresses=_united(nic.addresses, found[nic.mac]))
            for nic in plan.nic
        ),
    )


def _united(configured: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    known = {ip_interface(address).ip for address in configured}
    return (*configured, *(address for address in found if ip_interface(address).ip not in known))


def _with_fixups(plan: Plan, reading: Reading) -> Plan:
    """The fix-ups that have something to do, each looked at over what those before it leave."""
    facts = facts_of(plan)
    edits: tuple[Edit, ...] = ()
    choices = []
    for rule in ALL:
        own = rule.edits(Edited(reading, edits), facts)
        if own:
            files = tuple(edit.path for edit in own)
            choices.append(FixupChoice(name=rule.name, why=rule.reason, files=files))
        edits += own
    return replace(plan, fixup=tuple(choices))
