"""What refuses a target. Each guard has a name, which `--override` takes where overriding it makes sense."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blocksync import footprints, own_files
from blocksync.devices import Device
from blocksync.errors import Failed, Refused, Usage
from blocksync.sizes import format_size

# The guards that a person may override: those that protect what somebody else keeps on the target.
# `size`, `alignment`, `same` and `changed` protect the copy itself and hold always.
OVERRIDABLE = frozenset({"mounted", "swap", "held", "domain", "open", "lvm", "md", "signature", "folder"})

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Kernel:
    """Where the kernel tells who uses what."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


KERNEL = Kernel()


@dataclass(frozen=True, slots=True)
class Signature:
    """What libblkid recognises on a range: a type (ext4, swap, LVM2_member, dos) and its UUID ("" when it has
    none).

    `is_table` says that the type is a partition table's.
    """

    type: str
    uuid: str = ""
    is_table: bool = False


def check_overrides(names: frozenset[str]) -> None:
    """Raises Usage for a guard that does not exist or cannot be overridden."""
    for name in sorted(names - OVERRIDABLE):
        raise Usage(name, "is no guard that can be overridden", f"one of: {', '.join(sorted(OVERRIDABLE))}")


def claims_waived(overrides: frozenset[str]) -> bool:
    """Whether the kernel's own claim (O_EXCL) must be left out: an overridden guard is about one that is
    held.
    """
    return bool(overrides & {"mounted", "swap", "held", "domain", "open"})


def range_fits(target: Device, offset: int, size: int) -> None:
    """Raises Refused (guards `alignment`, `size`) unless [offset, offset+size) can be written."""
    unit = max(SECTOR, target.sector_size)
    if offset < 0 or offset % unit:
        raise Refused(
            target.path,
            f"offset {offset} is no multiple of {unit} bytes",
            "start partitions on whole sectors",
            guard="alignment",
        )
    if offset + size > target.size:
        raise Refused(
            target.path,
            f"has {target.size} bytes; offset and size need {offset + size} ({format_size(offset + size)})",
            "name a larger target, or grow it",
            guard="size",
        )


def not_the_source(source: Device, target: Device, offset: int, size: int) -> None:
    """Raises Refused (guard `same`) when the target range shares a byte with the source range [0, size),
    under whatever names: loop devices, partitions and device-mapper are looked through.
    """
    ours = footprints.of_path(target.path, offset, offset + size)
    theirs = footprints.of_path(source.path, 0, size)
    same_number = source.kind == target.kind and source.number == target.number
    if same_number or any(one.overlaps(other) for one in ours for other in theirs):
        raise Refused(
            target.path,
            f"is the same as the source {source.path}, or overlaps it",
            "name another target",
            guard="same",
        )


def out_of_reach(path: Path, overrides: frozenset[str] = frozenset()) -> None:
    """Raises Refused (guard `folder`) where another user can put something else in a target's place, or lead
    its path elsewhere.
    """
    if "folder" in overrides:
        return
    try:
        own_files.require_safe_way(path, "a target")
    except Refused as error:
        knowing = "; knowing better, --override folder"
        raise Refused(error.thing, error.cause, error.way_out + knowing, guard=error.guard) from None


def not_in_use(target: Device, overrides: frozenset[str] = frozenset(), kernel: Kernel = KERNEL) -> None:
    """Raises Refused (guards `mounted`, `swap`, `held`, `domain`, `open`), naming who uses the target or a
    partition of it.
    """
    for guard, user in _uses(target, kernel):
        if guard not in overrides:
            raise _refused(target, f"is in use: {user}", "release it, or name another target", guard)


def holders_of(target: Device, kernel: Kernel = KERNEL) -> str:
    """Who holds the target, for a message; empty when nobody is found."""
    return ", ".join(user for _, user in _uses(target, kernel))


def lock_owner_of(target: Device, kernel: Kernel = KERNEL) -> str:
    """The process that holds a lock on a file or device node, from /proc/locks; empty when not found."""
    status = target.path.stat()
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in _lines(kernel.proc / "locks"):
        fields = line.split()
        if wanted in fields and "->" not in fields:
            return _process(fields[fields.index(wanted) - 1], kernel)
    return ""


def no_foreign_signature(
    source: Device,
    target: Device,
    offset: int,
    size: int,
    *,
    known: frozenset[Signature] = frozenset(),
    overrides: frozenset[str] = frozenset(),
) -> None:
    """Raises Refused (guards `lvm`, `md`, `signature`) when the target range, or the target as a whole, holds
    something that is neither the source's own nor known. A partition table is no reason against a range
    behind it.
    """
    expected = known | {found for found in [probe(source.path, 0, size)] if found}
    only_signatures(expected, target, offset, size, overrides)


def only_signatures(
    expected: frozenset[Signature],
    target: Device,
    offset: int,
    size: int,
    overrides: frozenset[str] = frozenset(),
) -> None:
    """The same against signatures that are expected; for a source on another host."""
    inside = probe(target.path, offset, size)
    if inside is not None and inside not in expected:
        _refuse_signature(target, inside, offset, overrides)
    whole = probe(target.path, 0, target.size)
    if whole is not None and whole not in expected and not (whole.is_table and offset > 0):
        _refuse_signature(target, whole, 0, overrides)


def _refuse_signature(target: Device, found: Signature, offset: int, overrides: frozenset[str]) -> None:
    guard = _guard_of(found)
    if guard in overrides:
        return
    what = found.type + (f" with UUID {found.uuid}" if found.uuid else "")
    raise _refused(
        target,
        f"already holds {what} at {offset}, which is not the source's",
        "check that this is the right target; `wipefs` shows and clears what is there",
        guard,
    )


def _guard_of(found: Signature) -> str:
    if found.type.startswith("LVM"):
        return "lvm"
    return "md" if found.type.endswith("_raid_member") else "signature"


def probe(path: Path, offset: int, size: int) -> Signature | None:
    """What libblkid finds in [offset, offset+size): None when nothing; type `ambivalent` for contradicting
    signs.
    """
    # Imported late: a pass that trusts its digest file probes nothing.
    import subprocess  # noqa: PLC0415

    span = ["--offset", str(offset), "--size", str(size)]
    argv = ["blkid", "--probe", "--output", "export", *span, "--", str(path)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
        )
    except FileNotFoundError as error:
        raise Failed("blkid", "is not installed", "install util-linux") from error
    if done.returncode == 8:
        return Signature("ambivalent")
    if done.returncode not in (0, 2):
        raise Failed(path, f"blkid failed: {done.stderr.strip()}", "check the device and `dmesg`")
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if kind := found.get("TYPE"):
        return Signature(kind, found.get("UUID", ""))
    if kind := found.get("PTTYPE"):
        return Signature(kind, found.get("PTUUID", ""), is_table=True)
    return None


def _refused(target: Device, cause: str, way_out: str, guard: str) -> Refused:
    knowing = f"; knowing better, --override {guard}" if guard in OVERRIDABLE else ""
    return Refused(target.path, cause, way_out + knowing, guard=guard)


def refused_claim(target: Device) -> Refused:
    """The refusal of a target that the kernel did not let us claim."""
    who = holders_of(target) or "another user in the kernel"
    return _refused(target, f"is held by {who}", "stop what uses it, or name another target", "held")


def refused_lock(target: Device) -> Refused:
    """The refusal of a target that another process holds a lock on."""
    who = lock_owner_of(target) or "another process"
    return _refused(target, f"is locked by {who}", "wait for that process, or name another target", "held")


def _uses(target: Device, kernel: Kernel) -> Iterator[tuple[str, str]]:
    nodes = _nodes(target, kernel) if target.is_block else frozenset()
    yield from _mounts(nodes, kernel)
    yield from _swaps(target, nodes, kernel)
    if target.is_block:
        yield from _kernel_holders(target, nodes, kernel)
        yield from _xen_domains(nodes, kernel)
    else:
        yield from _loops(target, kernel)
    yield from _writers(target, kernel)


def _nodes(target: Device, kernel: Kernel) -> frozenset[tuple[int, int]]:
    """The device and its partitions, as (major, minor)."""
    partitions = _sys_node(target.number, kernel).glob("*/partition")
    return frozenset({target.number, *(_number(_text(path.parent / "dev")) for path in partitions)})


def _mounts(nodes: frozenset[tuple[int, int]], kernel: Kernel) -> Iterator[tuple[str, str]]:
    for line in _lines(kernel.proc / "self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields = before.split()
        # btrfs mounts under a number of its own; its device is only named.
        if nodes & {_number(fields[2]), _number_of_path(_unescape(after.split()[1]))}:
            yield "mounted", f"mounted on {_unescape(fields[4])}"


def _swaps(target: Device, nodes: frozenset[tuple[int, int]], kernel: Kernel) -> Iterator[tuple[str, str]]:
    for line in _lines(kernel.proc / "swaps")[1:]:
        path = _unescape(line.split()[0])
        if _number_of_path(path) in nodes or (not target.is_block and _is_file(path, target)):
            yield "swap", f"swap space {path}"


def _kernel_holders(
    target: Device, nodes: frozenset[tuple[int, int]], kernel: Kernel
) -> Iterator[tuple[str, str]]:
    """Devices made of this one, of a partition of it, or of the disk that it is a partition of."""
    folders = [_sys_node(number, kernel) for number in sorted(nodes)]
    if _text(folders[0] / "partition"):
        folders.append(_sys_node(target.number, kernel).resolve().parent)
    for folder in folders:
        for holder in sorted((folder / "holders").glob("*")):
            yield "held", f"part of {_text(holder / 'dm/name') or holder.name}"


def _xen_domains(nodes: frozenset[tuple[int, int]], kernel: Kernel) -> Iterator[tuple[str, str]]:
    # xen-blkback writes what it serves as MAJOR:MINOR in hexadecimal; vbd-DOMAIN-DEVICE names the domain.
    for served in sorted(kernel.sys.glob("bus/xen-backend/devices/vbd-*/physical_device")):
        major, _, minor = _text(served).partition(":")
        if minor and (int(major, 16), int(minor, 16)) in nodes:
            yield "domain", f"the disk of Xen domain {served.parent.name.split('-')[1]}"


def _loops(target: Device, kernel: Kernel) -> Iterator[tuple[str, str]]:
    for backing in sorted(kernel.sys.glob("block/loop*/loop/backing_file")):
        if _is_file(_text(backing), target):
            yield "held", f"attached to /dev/{backing.parent.parent.name}"


def _writers(target: Device, kernel: Kernel) -> Iterator[tuple[str, str]]:
    """Processes that have the target open for writing: a running guest's QEMU, for one."""
    name = target.path.resolve().name
    for pid in _entries(str(kernel.proc)):
        if pid.isdigit() and pid != str(os.getpid()):
            folder = f"{kernel.proc}/{pid}/fd"
            if any(_is_open_for_writing(folder, fd, target, name) for fd in _entries(folder)):
                yield "open", f"open for writing in {_process(pid, kernel)}"


def _is_open_for_writing(folder: str, fd: str, target: Device, name: str) -> bool:
    try:
        # Only what looks right is asked for its status: that may block on a dead network file system.
        link = os.readlink(f"{folder}/{fd}")  # noqa: PTH115 (a Path for each of thousands is slow)
        if not (link.startswith("/dev/") if target.is_block else link.endswith(f"/{name}")):
            return False
        status = Path(folder, fd).stat()
        if _number_of(status, is_block=target.is_block) != target.number:
            return False
        info = Path(f"{folder}info/{fd}").read_text()
    except OSError:
        # The process or the descriptor is gone.
        return False
    flags = int(info.partition("flags:")[2].split()[0], 8)
    return flags & os.O_ACCMODE != os.O_RDONLY


def _number_of(status: os.stat_result, *, is_block: bool) -> tuple[int, int] | None:
    if is_block:
        is_device = stat.S_ISBLK(status.st_mode)
        return (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None
    return status.st_dev, status.st_ino


def _entries(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _process(pid: str, kernel: Kernel) -> str:
    return f"process {pid} ({_text(kernel.proc / pid / 'comm') or 'unknown'})"


def _sys_node(number: tuple[int, int], kernel: Kernel) -> Path:
    return kernel.sys / "dev/block" / f"{number[0]}:{number[1]}"


def _number(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def _number_of_path(path: str) -> tuple[int, int] | None:
    try:
        return _number_of(Path(path).stat(), is_block=True)
    except OSError:
        return None


def _is_file(path: str, target: Device) -> bool:
    try:
        return _number_of(Path(path).stat(), is_block=False) == target.number
    except OSError:
        return False


def _unescape(field: str) -> str:
    # The kernel writes space, tab, newline and backslash in these files as \ooo.
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()
