"""What refuses a target. Each guard has a name, which `--override` takes where overriding it makes sense."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blocksync.errors import Failed, Refused, Usage
from blocksync.sizes import format_size

if TYPE_CHECKING:
    from blocksync.devices import Device

PROC = Path("/proc")
SYSFS = Path("/sys")

# The guards that a person may override: those that protect what somebody else keeps on the target.
# `size`, `alignment`, `same` and `changed` protect the copy itself and hold always.
OVERRIDABLE = frozenset({"mounted", "swap", "held", "open", "signature"})

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Signature:
    """What libblkid recognises on a range: a type (ext4, swap, LVM2_member, dos) and its UUID ("" when it has
    none).
    """

    type: str
    uuid: str = ""


def check_overrides(names: frozenset[str]) -> None:
    """Raises Usage for a guard that does not exist or cannot be overridden."""
    for name in sorted(names - OVERRIDABLE):
        raise Usage(name, "is no guard that can be overridden", f"one of: {', '.join(sorted(OVERRIDABLE))}")


def claims_waived(overrides: frozenset[str]) -> bool:
    """Whether the kernel's own claim (O_EXCL) must be left out, because a guard that implies one is
    overridden.
    """
    return bool(overrides & {"mounted", "swap", "held"})


def range_fits(target: "Device", offset: int, size: int) -> None:
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


def not_the_source(source: "Device", target: "Device") -> None:
    """Raises Refused (guard `same`) when both are one device or file."""
    if source.kind == target.kind and source.number == target.number:
        raise Refused(
            target.path, f"is the same as the source {source.path}", "name another target", guard="same"
        )


def not_in_use(target: "Device", overrides: frozenset[str] = frozenset()) -> None:
    """Raises Refused (guards `mounted`, `swap`, `held`, `open`) naming who uses the target or a partition of
    it.
    """
    for guard, user in _uses(target):
        if guard not in overrides:
            raise Refused(
                target.path,
                f"is in use: {user}",
                f"release it, or name another target (or, knowing better, --override {guard})",
                guard=guard,
            )


def holders_of(target: "Device") -> str:
    """Who holds the target, for a message; empty when nobody is found."""
    return ", ".join(user for _, user in _uses(target))


def lock_owner_of(target: "Device") -> str:
    """The process that holds a lock on a file or device node, from /proc/locks; empty when not found."""
    status = target.path.stat()
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in _lines(PROC / "locks"):
        fields = line.split()
        if wanted in fields and "->" not in fields:
            return _process(fields[fields.index(wanted) - 1])
    return ""


def no_foreign_signature(
    source: "Device",
    target: "Device",
    offset: int,
    size: int,
    *,
    known: frozenset[Signature] = frozenset(),
    overrides: frozenset[str] = frozenset(),
) -> None:
    """Raises Refused (guard `signature`) when the target range holds something that is not the source's own
    or known.
    """
    if "signature" in overrides:
        return
    found = probe(target.path, offset, size)
    if found is None or found in known or found == probe(source.path, 0, size):
        return
    what = f"a {found.type}" + (f" with UUID {found.uuid}" if found.uuid else "")
    raise Refused(
        target.path,
        f"already holds {what} at {offset}, which is not the source's",
        "check that this is the right target; `wipefs` clears it, --override signature writes over it",
        guard="signature",
    )


def probe(path: Path, offset: int, size: int) -> Signature | None:
    """What libblkid finds in [offset, offset+size): None when nothing. Contradicting signs count as
    `ambivalent`.
    """
    # Imported late: a pass that trusts its digest file probes nothing.
    import subprocess  # noqa: PLC0415

    argv = [
        "blkid",
        "--probe",
        "--output",
        "export",
        "--offset",
        str(offset),
        "--size",
        str(size),
        "--",
        str(path),
    ]
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
        return Signature(kind, found.get("PTUUID", ""))
    return None


def _uses(target: "Device") -> Iterator[tuple[str, str]]:
    nodes = _nodes(target) if target.is_block else frozenset()
    yield from _mounts(nodes)
    yield from _swaps(target, nodes)
    yield from _kernel_holders(nodes)
    if not target.is_block:
        yield from _loops(target)
    yield from _writers(target)


def _nodes(target: "Device") -> frozenset[tuple[int, int]]:
    """The device and its partitions, as (major, minor)."""
    node = _sys_node(target.number)
    partitions = (_number(_text(path.parent / "dev")) for path in node.glob("*/partition"))
    return frozenset({target.number, *partitions})


def _mounts(nodes: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    for line in _lines(PROC / "self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields = before.split()
        # btrfs mounts under a number of its own; its device is only named.
        if nodes & {_number(fields[2]), _number_of_path(_unescape(after.split()[1]))}:
            yield "mounted", f"mounted on {_unescape(fields[4])}"


def _swaps(target: "Device", nodes: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    for line in _lines(PROC / "swaps")[1:]:
        path = _unescape(line.split()[0])
        if _number_of_path(path) in nodes or (not target.is_block and _is_file(path, target)):
            yield "swap", f"swap space {path}"


def _kernel_holders(nodes: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    for number in sorted(nodes):
        for holder in sorted((_sys_node(number) / "holders").glob("*")):
            name = _text(holder / "dm/name") or holder.name
            yield "held", f"part of {name}"


def _loops(target: "Device") -> Iterator[tuple[str, str]]:
    for backing in sorted(SYSFS.glob("block/loop*/loop/backing_file")):
        if _is_file(_text(backing), target):
            yield "held", f"attached to /dev/{backing.parent.parent.name}"


def _writers(target: "Device") -> Iterator[tuple[str, str]]:
    """Processes that have the target open for writing: a running guest's QEMU, for one."""
    name = target.path.resolve().name
    for pid in _entries(str(PROC)):
        if pid.isdigit() and pid != str(os.getpid()):
            folder = f"{PROC}/{pid}/fd"
            if any(_is_open_for_writing(folder, fd, target, name) for fd in _entries(folder)):
                yield "open", f"open for writing in {_process(pid)}"


def _is_open_for_writing(folder: str, fd: str, target: "Device", name: str) -> bool:
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


def _process(pid: str) -> str:
    return f"process {pid} ({_text(PROC / pid / 'comm') or 'unknown'})"


def _sys_node(number: tuple[int, int]) -> Path:
    return SYSFS / "dev/block" / f"{number[0]}:{number[1]}"


def _number(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def _number_of_path(path: str) -> tuple[int, int] | None:
    try:
        return _number_of(Path(path).stat(), is_block=True)
    except OSError:
        return None


def _is_file(path: str, target: "Device") -> bool:
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
