"""What a plan says. Frozen; checked strictly when it is read, because people edit it."""

import ipaddress
import re
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from orchestrate.layout.table import BootArea, Partition, PartitionKind, Table, TableKind

FORMAT = 1


class _PlanPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the plan's parts: immutable, and a misspelled key is an error, not a silent default."""


class Action(StrEnum):
    """What happens to a volume: its bytes are copied, or it is made anew (swap)."""

    COPY = "copy"
    RECREATE = "recreate"


class Guest(_PlanPart, frozen=True, kw_only=True):
    """The domain: memory in MiB, clock as libvirt's `clock offset`. `xen_name` is what Xen calls the guest,
    where that is not its `name`.
    """

    name: str
    xen_name: str | None = None
    memory_mib: int
    vcpus: int = 1
    arch: Literal["x86_64", "i686"] = "x86_64"
    clock: Literal["utc", "localtime"] = "utc"

    @property
    def on_xen(self) -> str:
        """Its name on the Xen host."""
        return self.xen_name or self.name


class Nic(_PlanPart, frozen=True, kw_only=True):
    """A network card; `name` is what the guest calls it under Xen, where that is known."""

    mac: str
    bridge: str | None = None
    name: str | None = None
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Each address is one, with or without its prefix. Raises `ValueError`."""
        for address in self.addresses:
            ipaddress.ip_interface(address)


class Place(_PlanPart, frozen=True, kw_only=True):
    """A volume's partition: its number and its byte range on the disk."""

    number: int
    offset: int
    size: int


class Volume(_PlanPart, frozen=True, kw_only=True):
    """A volume of the Xen guest and the partition that it becomes. Sizes in bytes.

    `source` is the configured device, `path` where it is read on this machine, `device` the guest's name.
    """

    device: str
    source: str
    path: str
    size: int
    filesystem: str
    action: Action
    why: str
    partition: Place
    uuid: str | None = None
    label: str | None = None
    mountpoint: str | None = None


class BootPlace(_PlanPart, frozen=True, kw_only=True):
    """Where GRUB's core image lies; `number` is its BIOS boot partition on a GPT."""

    offset: int
    size: int
    number: int | None = None


class Disk(_PlanPart, frozen=True, kw_only=True):
    """The target: one disk. `identity` is the GPT's UUID, or holds the MBR's signature."""

    path: str
    size: int
    table: TableKind
    identity: str
    boot_area: BootPlace


class Boot(_PlanPart, frozen=True, kw_only=True):
    """How the guest starts: its root volume, the kernel's arguments, what its console says when it is up."""

    root: str
    arguments: tuple[str, ...]
    kernels: tuple[str, ...] = ()
    expect: str = "login:"


class FixupChoice(_PlanPart, frozen=True, kw_only=True):
    """A fix-up to apply; a line taken out of the plan is not applied. `files` were seen to need it."""

    name: str
    why: str
    files: tuple[str, ...] = ()


_TCP = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


class Check(_PlanPart, frozen=True, kw_only=True):
    """How to see that the guest serves: a `command` that ends well, a `tcp` port (`HOST:PORT`) that accepts,
    or an HTTP `url` that answers with success. Tried for `timeout` seconds.
    """

    command: tuple[str, ...] = ()
    tcp: str = ""
    url: str = ""
    timeout: float = 120.0

    def __post_init__(self) -> None:
        """Exactly one of the three. Raises `ValueError`."""
        if sum(map(bool, (self.command, self.tcp, self.url))) != 1:
            raise ValueError("a check has one of command, tcp and url")
        port = _TCP.fullmatch(self.tcp)
        if self.tcp and not (port and 0 < int(port[1]) < 65536):
            raise ValueError(f"check: {self.tcp!r} is not HOST:PORT")
        if self.url and not re.fullmatch(r"https?://[^\s/]+\S*", self.url):
            raise ValueError(f"check: {self.url!r} is no http:// or https:// address")
        if not 0 < self.timeout <= 86400:
            raise ValueError("check: timeout is in seconds, above 0 and a day at most")

    @property
    def title(self) -> str:
        """What it looks at, in one line."""
        return " ".join(self.command) or (f"tcp {self.tcp}" if self.tcp else self.url)


class Plan(_PlanPart, frozen=True, kw_only=True):
    """One guest's way from Xen to KVM. `xen_host` ([user@]host[:port]) has the volumes, if not this one, and
    `config` is the path there of the configuration that starts the guest again.
    """

    format: int
    xen_host: str | None = None
    config: str | None = None
    guest: Guest
    disk: Disk
    boot: Boot
    volume: tuple[Volume, ...]
    nic: tuple[Nic, ...] = ()
    fixup: tuple[FixupChoice, ...] = ()
    check: tuple[Check, ...] = ()

    @property
    def target(self) -> Path:
        """The target disk's path."""
        return Path(self.disk.path)

    @property
    def copied(self) -> tuple[Volume, ...]:
        """The volumes whose bytes are copied."""
        return tuple(volume for volume in self.volume if volume.action is Action.COPY)

    @property
    def recreated(self) -> tuple[Volume, ...]:
        """The volumes that are made anew."""
        return tuple(volume for volume in self.volume if volume.action is Action.RECREATE)

    @property
    def root(self) -> Volume:
        """The volume with the root file system."""
        return next(volume for volume in self.volume if volume.device == self.boot.root)

    @property
    def boot_volume(self) -> Volume:
        """The volume that holds the guest's /boot: one of its own, or the root's."""
        return next((volume for volume in self.volume if volume.mountpoint == "/boot"), self.root)


def partition_kind(filesystem: str) -> PartitionKind:
    """The partition type for what blkid calls `filesystem`."""
    return {
        "swap": PartitionKind.SWAP,
        "LVM2_member": PartitionKind.LVM,
        "linux_raid_member": PartitionKind.RAID,
    }.get(filesystem, PartitionKind.LINUX)


def table(plan: Plan) -> Table:
    """The partition table that the plan's numbers describe."""
    partitions = [
        Partition(
            number=volume.partition.number,
            offset=volume.partition.offset,
            size=volume.partition.size,
            kind=partition_kind(volume.filesystem),
            bootable=volume is plan.boot_volume,
        )
        for volume in plan.volume
    ]
    area = plan.disk.boot_area
    if area.number is not None:
        partitions.append(
            Partition(number=area.number, offset=area.offset, size=area.size, kind=PartitionKind.BIOS_BOOT)
        )
    return Table(
        kind=plan.disk.table,
        size=plan.disk.size,
        identity=plan.disk.identity,
        partitions=tuple(sorted(partitions, key=lambda part: part.offset)),
        boot_area=BootArea(offset=area.offset, size=area.size),
    )
