"""`xen2kvm plan`: read a Xen configuration, probe its volumes, compose the plan. Writes nothing itself."""

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blocksync.errors import Refused, Usage
from blocksync.locations import Location
from blocksync.progress import Tell, untold
from orchestrate import source, volumes
from orchestrate.guest import initramfs, kernels, power_button
from orchestrate.guest.unmounted import Unmounted
from orchestrate.hosts import Done, Host, ThisHost
from orchestrate.layout.table import TableKind
from orchestrate.plan.compose import Found, Wishes, compose, mountpoints, refuse_unfit, root_device
from orchestrate.plan.model import Plan
from orchestrate.source import Reach
from orchestrate.xen.disks import Disk
from orchestrate.xen.guest import XenGuest, parse_guest, read_guest


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """The command's input. `mapped` gives the path of a configured device where it has another one.

    With a host in `config`, the configuration and the volumes are on that host.
    """

    config: Location
    disk: Path
    mapped: Mapping[str, Path]
    reach: Reach = field(default_factory=Reach)
    table: TableKind | None = None
    first_sector: int = 2048
    root: str | None = None
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and what its reader should know besides."""

    plan: Plan
    warnings: tuple[str, ...]


class _Counted:
    """A host whose commands read the guest's files; each is counted and told: a slow one needs minutes."""

    def __init__(self, host: Host, tell: Tell) -> None:
        self._host = host
        self._tell = tell
        self._count = 0

    def run(self, argv: Sequence[str]) -> Done:
        """As `Host.run`."""
        self._count += 1
        self._tell(f"reading the guest's files ({self._count})")
        return self._host.run(argv)

    def describe(self) -> str:
        """As `Host.describe`."""
        return self._host.describe()


def run(request: PlanRequest, tell: Tell = untold, aside: source.Aside = source.not_aside) -> Planned:
    """Make the plan; raises `Usage` or `Refused` for what cannot be migrated. `tell` is told what it
    is at.
    """
    far = request.config.host
    with source.opened(None if far is None else str(far), request.reach, aside) as volumes_at:
        return _planned(request, volumes_at.host, tell)


def _planned(request: PlanRequest, host: Host, tell: Tell) -> Planned:
    tell(f"reading {request.config}")
    xen = _read_config(request.config, host)
    _refuse_unknown_mappings(request, xen)
    found = []
    for number, disk in enumerate(xen.disks, 1):
        tell(f"looking at volume {number} of {len(xen.disks)}: {disk.target}")
        found.append(_find(host, disk, request.mapped, request.config))
    refuse_unfit(found, request.overrides)
    root = _root(request, xen, found)
    far = request.config.host
    wishes = Wishes(
        disk=str(request.disk.absolute()),
        xen_host=None if far is None else str(far),
        config=str(request.config.path if far else request.config.path.absolute()),
        disk_size=_target_size(request.disk, found if far is None else []),
        table=request.table,
        first_sector=request.first_sector,
        overrides=request.overrides,
    )
    reading = _reading(_Counted(host, tell), found, root)
    plan, warnings = compose(xen, found, wishes, root=root, reading=reading)
    # The newest kernel is the one that boots by itself; to look into more of them costs a slow host minutes.
    of_initramfs = initramfs.warnings(reading, kernels.bootable(reading)[:1])
    return Planned(plan, (*warnings, *of_initramfs, *power_button.warnings(reading)))


def _read_config(config: Location, host: Host) -> XenGuest:
    if config.host is None:
        return read_guest(config.path)
    told = host.run(["cat", "--", str(config.path)])
    if told.status:
        raise Usage(config, f"cannot be read: {told.complaint}", "give the path that it has on that host")
    return parse_guest(told.output, str(config))


def _refuse_unknown_mappings(request: PlanRequest, xen: XenGuest) -> None:
    configured = [disk.target for disk in xen.disks]
    for device in request.mapped:
        if device not in configured:
            raise Usage(
                f"--volume {device}", "is not a disk of this guest", f"it has {', '.join(configured)}"
            )


def _find(host: Host, disk: Disk, mapped: Mapping[str, Path], config: Location) -> Found:
    if disk.format != "raw":
        raise Refused(
            f"{disk.place}: {disk.target}",
            f"is a {disk.format} image; volumes are copied from raw bytes",
            "stop the guest, convert with `qemu-img convert -O raw`, and map the result with --volume",
            guard="image-format",
        )
    path = mapped.get(disk.target, Path(disk.target))
    size = volumes.size(host, path)
    return Found(
        device=disk.vdev,
        source=disk.target,
        path=str(path if config.host else path.absolute()),
        size=size,
        signature=volumes.probe(host, path),
    )


def _root(request: PlanRequest, xen: XenGuest, found: list[Found]) -> str:
    if request.root is None:
        return root_device(xen, found)
    wanted = request.root.removeprefix("/dev/")
    if wanted not in {volume.device for volume in found}:
        devices = ", ".join(volume.device for volume in found)
        raise Usage(f"--root {request.root}", "is none of the guest's devices", f"it has {devices}")
    return wanted


def _target_size(target: Path, found: list[Found]) -> int | None:
    """The target's size in bytes if it exists; None for a file that is still to be made."""
    if not target.exists():
        if not target.parent.is_dir():
            raise Usage(target, "its folder does not exist", "make it, or name another --disk")
        if re.match(r"/dev/", str(target.absolute())):
            raise Usage(target, "no such device", "make the volume first, e.g. `lvcreate -L SIZE -n NAME VG`")
        return None
    mode = target.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise Usage(target, "is neither a file nor a block device", "name another --disk")
    for volume in found:
        if target.samefile(volume.path):
            raise Refused(
                target,
                f"is the guest's own volume {volume.device}",
                "name another --disk",
                guard="same-device",
            )
    return volumes.size(ThisHost(), target)


def _reading(host: Host, found: list[Found], root: str) -> Unmounted:
    """The guest's files: first the root alone, whose fstab tells where the other volumes belong."""
    paths = {volume.device: Path(volume.path) for volume in found}
    places = mountpoints(found, root, Unmounted(host, {"/": paths[root]}))
    return Unmounted(host, {place: paths[device] for device, place in places.items()})
