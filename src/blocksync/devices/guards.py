"""What refuses a target. Each guard has a name, which `--override` takes where overriding it makes sense."""

import os
from dataclasses import dataclass
from pathlib import Path

from blocksync import own_files
from blocksync.devices import backing, contents, users
from blocksync.devices import device as devices
from blocksync.devices.device import Device
from blocksync.devices.users import KERNEL, KernelView
from blocksync.errors import Failed, Refused, Usage
from blocksync.hosts import programs
from blocksync.sizes import format_size

# The guards that a person may override: those that protect what somebody else keeps on the target.
# `size`, `alignment`, `same` and `changed` protect the copy itself and hold always.
OVERRIDABLE = frozenset({"mounted", "swap", "held", "domain", "open", "lvm", "md", "signature", "folder"})

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Signature:
    """What is recognised on a range: a type (ext4, swap, LVM2_member, dos, qcow2) and its UUID ("" when it
    has none).

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
    ours = backing.of_path(target.path, offset, offset + size)
    theirs = backing.of_path(source.path, 0, size)
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
        raise Refused(
            error.thing, error.cause, _or_knowing(error.way_out, "folder"), guard="folder"
        ) from None


def not_in_use(target: Device, overrides: frozenset[str] = frozenset(), kernel: KernelView = KERNEL) -> None:
    """Raises Refused (guards `mounted`, `swap`, `held`, `domain`, `open`), naming who uses the target or a
    partition of it.
    """
    for guard, user in users.of(target, kernel):
        if guard not in overrides:
            raise _refused(target, f"is in use: {user}", "release it, or name another target", guard)


def holders_of(target: Device, kernel: KernelView = KERNEL) -> str:
    """Who holds the target, for a message; empty when nobody is found."""
    return ", ".join(user for _, user in users.of(target, kernel))


def lock_owner_of(target: Device, kernel: KernelView = KERNEL) -> str:
    """The process that holds a lock on a file or device node, from /proc/locks; empty when not found."""
    status = target.path.stat()
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in users.lines(kernel.proc / "locks"):
        fields = line.split()
        if wanted in fields and "->" not in fields:
            return users.process(fields[fields.index(wanted) - 1], kernel)
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
    """What libblkid finds in [offset, offset+size), or else contents.py: None when nothing; type `ambivalent`
    for contradicting signs.
    """
    # Imported late: a pass that trusts its digest file probes nothing.

    span = ["--offset", str(offset), "--size", str(size)]
    argv = [programs.find("blkid"), "--probe", "--output", "export", *span, "--", str(path)]
    done = programs.run(
        argv, capture_output=True, text=True, env=programs.environment(LC_ALL="C"), check=False
    )
    if done.returncode == 8:
        return Signature("ambivalent")
    if done.returncode not in (0, 2):
        raise Failed(path, f"blkid failed: {done.stderr.strip()}", "check the device and `dmesg`")
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if kind := found.get("TYPE"):
        return Signature(kind, found.get("UUID", ""))
    if kind := found.get("PTTYPE"):
        return Signature(kind, found.get("PTUUID", ""), is_table=True)
    return _format(path, offset, size)


def _format(path: Path, offset: int, size: int) -> Signature | None:
    """What libblkid does not know: images, archives and the like, which have no identity."""
    device = devices.measure(path)
    size = min(size, device.size - offset)
    with devices.open_source(device, direct=device.is_block) as opened:
        name = contents.recognised(opened, offset, size) if size > 0 else None
    return None if name is None else Signature(name)


def _refused(target: Device, cause: str, way_out: str, guard: str) -> Refused:
    return Refused(target.path, cause, _or_knowing(way_out, guard), guard=guard)


def _or_knowing(way_out: str, guard: str) -> str:
    return f"{way_out}; knowing better, --override {guard}" if guard in OVERRIDABLE else way_out


def refused_claim(target: Device) -> Refused:
    """The refusal of a target that the kernel did not let us claim."""
    who = holders_of(target) or "another user in the kernel"
    return _refused(target, f"is held by {who}", "stop what uses it, or name another target", "held")


def refused_image_lock(target: Device) -> Refused:
    """The refusal of a target that a QEMU holds a lock on, wherever it runs."""
    return _refused(
        target,
        "is in use by a running QEMU (its lock on the image says so)",
        "shut that guest down, or name another target",
        "open",
    )


def refused_lock(target: Device) -> Refused:
    """The refusal of a target that another process holds a lock on."""
    who = lock_owner_of(target) or "another process"
    return _refused(target, f"is locked by {who}", "wait for that process, or name another target", "held")
