"""`xen2kvm plan`: read a Xen configuration, probe its volumes, compose the plan. Writes nothing itself."""

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blocksync.errors import Refused, Usage
from orchestrate import volumes
from orchestrate.guest.unmounted import Unmounted
from orchestrate.hosts import Host, ThisHost
from orchestrate.layout.table import TableKind
from orchestrate.plan.compose import Found, Wishes, compose, mountpoints, refuse_unfit, root_device
from orchestrate.plan.model import Plan
from orchestrate.xen.disks import Disk
from orchestrate.xen.guest import XenGuest, read_guest


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """The command's input. `mapped` gives the path on this machine of a configured device."""

    config: Path
    disk: Path
    mapped: Mapping[str, Path]
    host: Host = field(default_factory=ThisHost)
    table: TableKind | None = None
    first_sector: int = 2048
    root: str | None = None
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and what its reader should know besides."""

    plan: Plan
    warnings: tuple[str, ...]


def run(request: PlanRequest) -> Planned:
    """Make the plan; raises `Usage` or `Refused` for what cannot be migrated."""
    xen = read_guest(request.config)
    _refuse_unknown_mappings(request, xen)
    found = [_find(request.host, disk, request.mapped) for disk in xen.disks]
    refuse_unfit(found, request.overrides)
    root = _root(request, xen, found)
    wishes = Wishes(
        disk=str(request.disk.absolute()),
        disk_size=_target_size(request.disk, found),
        table=request.table,
        first_sector=request.first_sector,
        overrides=request.overrides,
    )
    plan, warnings = compose(xen, found, wishes, root=root, reading=_reading(request.host, found, root))
    return Planned(plan, warnings)


def _refuse_unknown_mappings(request: PlanRequest, xen: XenGuest) -> None:
    configured = [disk.target for disk in xen.disks]
    for device in request.mapped:
        if device not in configured:
            raise Usage(
                f"--volume {device}", "is not a disk of this guest", f"it has {', '.join(configured)}"
            )


def _find(host: Host, disk: Disk, mapped: Mapping[str, Path]) -> Found:
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
        path=str(path.absolute()),
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
