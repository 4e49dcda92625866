"""`xen2kvm plan`: read a Xen configuration, probe its volumes, compose the plan. Writes nothing itself."""

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blocksync.devices import guards
from blocksync.devices.device import measure
from blocksync.errors import Refused, Usage
from blocksync.foreign import shown
from blocksync.hosts.host import MOST_BYTES, Completed, Host, ThisHost
from blocksync.locations import Location
from blocksync.progress import Tell, untold
from blocksync.transports.reach import Reach
from orchestrate.copying import source
from orchestrate.guest import power_button, volumes
from orchestrate.guest.boot import initramfs, kernels
from orchestrate.guest.files.limits import limited
from orchestrate.guest.files.unmounted import Unmounted
from orchestrate.layout.table import TableKind
from orchestrate.plan import file as plan_file
from orchestrate.plan.compose import FoundVolume, Wishes, compose, layout_of, mountpoints, refuse_twins, unfit
from orchestrate.plan.findings import Findings
from orchestrate.plan.model import Plan
from orchestrate.plan.root import Root
from orchestrate.plan.root import find as find_root
from orchestrate.xen.disks import XenDisk
from orchestrate.xen.guest import XenGuest, parse_guest, read_guest
from orchestrate.xen.vifs import Vif


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """The command's input. `mapped` gives the path of a configured device where it has another one.

    With a host in `config`, the configuration and the volumes are on that host. `name` is the guest's on KVM,
    where it shall have another.
    """

    config: Location
    disk: Path
    mapped: Mapping[str, Path]
    reach: Reach = field(default_factory=Reach)
    table: TableKind | None = None
    first_sector: int = 2048
    root: str | None = None
    name: str | None = None
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

    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        """As `Host.run`."""
        self._count += 1
        self._tell(f"reading the guest's files ({self._count})")
        return self._host.run(argv, most=most)

    def describe(self) -> str:
        """As `Host.describe`."""
        return self._host.describe()


def run(request: PlanRequest, tell: Tell = untold, aside: source.Aside = source.not_aside) -> Planned:
    """Make the plan; raises `Usage` or `Refused` for what cannot be migrated. `tell` is told what it
    is at.
    """
    for path in (request.disk, request.config.path, *request.mapped.values()):
        if not str(path).isprintable():
            raise Usage(shown(str(path)), "is a path that no plan can hold", "give it a plain name")
    far = request.config.host
    with source.opened(None if far is None else str(far), request.reach, aside) as volumes_at:
        return _planned(request, volumes_at.host, tell)


def _planned(request: PlanRequest, host: Host, tell: Tell) -> Planned:
    """All that can be looked at is, and what is wrong with it is told at once."""
    tell(f"reading {request.config}")
    xen = _read_config(request.config, host)
    findings = Findings()
    with findings.collected():
        _refuse_unknown_mappings(request, xen)
    with findings.collected():
        _require_name(request, xen)
    for nic in xen.vifs:
        with findings.collected():
            _require_bridge(nic)
    found = []
    for number, disk in enumerate(xen.disks, 1):
        tell(f"looking at volume {number} of {len(xen.disks)}: {disk.target}")
        with findings.collected():
            found.append(_find(host, disk, request.mapped, request.config))
    complete = len(found) == len(xen.disks)
    for error in unfit(found, request.overrides):
        findings.add(error)
    with findings.collected():
        _refuse_doubled(host, found)
        refuse_twins(found)
    far = request.config.host
    disk_size = None
    with findings.collected():
        disk_size = _target_size(request.disk, found if far is None else [])
    wishes = Wishes(
        disk=str(request.disk.absolute()),
        name=request.name,
        xen_host=None if far is None else str(far),
        config=str(request.config.path if far else request.config.path.absolute()),
        disk_size=disk_size,
        table=request.table,
        first_sector=request.first_sector,
        overrides=request.overrides,
    )
    chosen = reading = None
    files = _Counted(limited(host), tell)
    with findings.collected():
        chosen = _root(request, xen, found, files)
    if chosen is not None:
        with findings.collected():
            reading = _reading(files, found, chosen.device)
            kernels.require(reading, xen.name)
    if complete:
        with findings.collected():
            root = chosen.device if chosen else found[0].device
            places = {root: "/"} if reading is None else mountpoints(found, root, reading)
            layout_of(xen, found, wishes, places, root)
    planned = None
    if not findings and chosen is not None and reading is not None:
        with findings.collected():
            planned = _composed(xen, found, wishes, chosen, reading)
    findings.raise_any(request.config)
    if planned is None:
        raise AssertionError("a plan without findings is one")
    return planned


def _composed(
    xen: XenGuest, found: list[FoundVolume], wishes: Wishes, root: Root, reading: Unmounted
) -> Planned:
    plan, warnings = compose(xen, found, wishes, root=root.device, reading=reading)
    # The newest kernel is the one that boots by itself; to look into more of them costs a slow host minutes.
    of_initramfs = initramfs.warnings(reading, kernels.bootable(reading)[:1])
    of_root = () if root.why is None else (root.why,)
    warnings = (*warnings, *of_root, *of_initramfs, *power_button.warnings(reading))
    try:
        # What `sync` would refuse is refused here, where the guest can still be asked.
        plan_file.parse(plan_file.dump(plan, warnings), xen.source)
    except Usage as error:
        raise Usage(
            error.thing,
            f"a plan of this guest could not be read back: {error.cause}",
            "change that in the guest or in its configuration, then plan again",
        ) from error
    return Planned(plan, warnings)


def _require_name(request: PlanRequest, xen: XenGuest) -> None:
    """Refuse a name that the commands after this one would stumble over."""
    if not plan_file.is_xen_name(xen.name):
        raise Usage(
            f"{xen.source}: name = {shown(xen.name, 60)}",
            "xl and xm take this for an option or for a domain's number, not for a name",
            "rename the guest on Xen: xl rename ID NAME, and name = in its configuration",
        )
    name = request.name or xen.name
    if plan_file.is_domain_name(name):
        return
    fitting = re.sub(r"[^A-Za-z0-9+_.-]+", "-", name).strip("-+_.")[:64] or "guest"
    fitting = f"guest-{fitting}" if fitting.isdigit() else fitting
    raise Usage(
        f"--name {shown(name, 60)}" if request.name else f"{xen.source}: name = {shown(name, 60)}",
        "cannot be a domain's name: it has letters (a-z), digits, blanks inside and +_.:,@()#-, at most 128",
        f"give the guest another one on KVM: --name {fitting}",
    )


def _require_bridge(vif: Vif) -> None:
    """Refuse a bridge that no domain's XML can name."""
    if vif.bridge is not None and not re.fullmatch(r"[A-Za-z0-9_.:-]{1,15}", vif.bridge):
        raise Usage(
            vif.place, f"{shown(vif.bridge, 60)!r} is no name of a bridge", "write one that `ip link` shows"
        )
    if vif.mac is not None and int(vif.mac[:2], 16) & 1:
        raise Usage(vif.place, f"{vif.mac} is a multicast address", "the first octet of a card's MAC is even")


def _refuse_doubled(host: Host, found: list[FoundVolume]) -> None:
    """Refuse one volume under two of the guest's names."""
    seen: dict[str, FoundVolume] = {}
    for volume in found:
        identity = volumes.identity(host, Path(volume.path))
        first = seen.setdefault(identity, volume)
        if first is not volume:
            raise Refused(
                f"{volume.source} ({volume.device})",
                f"is the same volume as {first.source} ({first.device})",
                "see which of the two the guest means, and take the other out of the configuration",
                guard="same-device",
            )


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


def _find(host: Host, disk: XenDisk, mapped: Mapping[str, Path], config: Location) -> FoundVolume:
    if disk.format != "raw":
        raise Refused(
            f"{disk.place}: {disk.target}",
            f"is a {disk.format} image; volumes are copied from raw bytes",
            "stop the guest, convert with `qemu-img convert -O raw`, and map the result with --volume",
            guard="image-format",
        )
    path = mapped.get(disk.target, Path(disk.target))
    size = volumes.size(host, path)
    return FoundVolume(
        device=disk.vdev,
        source=disk.target,
        path=str(path if config.host else path.absolute()),
        size=size,
        signature=volumes.probe(host, path),
    )


def _root(request: PlanRequest, xen: XenGuest, found: list[FoundVolume], host: Host) -> Root | None:
    """The root; None where it may be on a volume of which another finding tells."""
    here, all_of_them = {volume.device for volume in found}, {disk.vdev for disk in xen.disks}
    named = (request.root or xen.root or "").removeprefix("/dev/")
    if here != all_of_them and named not in here and (named in all_of_them or request.root is None):
        return None
    return find_root(xen, found, lambda volume: Unmounted(host, {"/": Path(volume.path)}), request.root)


def _target_size(target: Path, found: list[FoundVolume]) -> int | None:
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
    disk = measure(target)
    for volume in found:
        if target.samefile(volume.path):
            raise Refused(
                target,
                f"is the guest's own volume {volume.device}",
                "name another --disk",
                guard="same-device",
            )
        guards.not_the_source(measure(Path(volume.path)), disk, 0, disk.size)
    try:
        guards.not_in_use(disk)
    except Refused as used:
        # Whether to write all the same is a question for `sync`.
        raise Refused(
            used.thing, used.cause, "release it, or name another --disk", guard=used.guard
        ) from used
    return volumes.size(ThisHost(), target)


def _reading(host: Host, found: list[FoundVolume], root: str) -> Unmounted:
    """The guest's files: first the root alone, whose fstab tells where the other volumes belong."""
    paths = {volume.device: Path(volume.path) for volume in found}
    places = mountpoints(found, root, Unmounted(host, {"/": paths[root]}))
    return Unmounted(host, {place: paths[device] for device, place in places.items()})
