"""What a fix-up may rely on: the guest's volumes and NICs, and the disk that they become."""

import re
from dataclasses import dataclass

# Names under which Linux has known a paravirtual disk, an emulated one, and virtio's.
_DISK = re.compile(r"(?:/dev/)?(?P<bus>xvd|sd|hd|vd)(?P<letters>[a-z]{1,3})(?P<partition>[1-9][0-9]{0,2})?")

# Neither a shell nor a boot loader nor fstab gives one of these characters a meaning.
_PLAIN_LABEL = re.compile(r"[\w.,:@%+=/~-]+")
_PARTUUID = re.compile(r"PARTUUID=|/dev/disk/by-partuuid/")


@dataclass(frozen=True, slots=True)
class GuestVolume:
    """A volume of the Xen guest: the name that the guest knows it by, and what it is on the new disk.

    `device` is without `/dev/` ("xvda2"), `partition` its number in the new table, `filesystem` the type
    as blkid names it ("ext4", "swap", "crypto_LUKS"), `uuid` and `label` as blkid prints them.
    """

    device: str
    partition: int
    filesystem: str
    uuid: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class GuestNic:
    """A NIC that keeps its MAC. `name` is what the guest calls it under Xen; None when nobody said."""

    mac: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of a guest besides its files.

    `root_device` is one of the volumes' devices, `disk` and `serial_console` are what the KVM guest calls
    its disk (`/dev/vda`) and its console (`ttyS0`).
    """

    volumes: tuple[GuestVolume, ...]
    nics: tuple[GuestNic, ...] = ()
    root_device: str = ""
    serial_console: str = "ttyS0"
    disk: str = "/dev/vda"

    def meant(self, partuuid: str, use: str) -> GuestVolume | None:
        """The volume that a PARTUUID means by its `use` ("root" or "swap"); None for any other name, or when
        that does not tell.

        No volume of a Xen guest has a PARTUUID, and its partition on the new disk has one of its own: what
        is written somewhere is of a disk before. There is one root, and mostly one swap.
        """
        if not _PARTUUID.match(partuuid):
            return None
        if use == "root":
            return self.volume(self.root_device) if self.root_device else None
        swaps = [volume for volume in self.volumes if volume.filesystem == "swap"]
        return swaps[0] if len(swaps) == 1 else None

    def volume(self, device: str) -> GuestVolume | None:
        """The volume that any spelling of its device names ("/dev/xvda2", "sda2"), None when none does.

        The exact name wins. Otherwise disk letter and partition decide, if one volume alone has them: a
        guest configured with sda2 may say /dev/hda2 in an old file and /dev/xvda2 in a new one.
        """
        wanted = device.removeprefix("/dev/")
        for volume in self.volumes:
            if volume.device == wanted:
                return volume
        place = _place(wanted)
        same = [volume for volume in self.volumes if place is not None and _place(volume.device) == place]
        return same[0] if len(same) == 1 else None

    def lasting_name(self, volume: GuestVolume) -> str:
        """How a file names `volume` so that it holds under Xen and KVM: UUID=, else LABEL=.

        Only a volume that has neither is named by its partition on the new disk ("/dev/vda2").
        """
        if volume.uuid:
            return f"UUID={volume.uuid}"
        if volume.label and _PLAIN_LABEL.fullmatch(volume.label):
            return f"LABEL={volume.label}"
        return self.partition_device(volume)

    def partition_device(self, volume: GuestVolume) -> str:
        """The partition that `volume` becomes, as the KVM guest names it ("/dev/vda2")."""
        return f"{self.disk}{volume.partition}"


def is_disk_name(device: str) -> bool:
    """Whether `device` is spelled like a disk or a partition ("/dev/sda", "xvda2")."""
    return _DISK.fullmatch(device) is not None


def _place(device: str) -> tuple[str, str | None] | None:
    match = _DISK.fullmatch(device)
    return (match["letters"], match["partition"]) if match else None
