"""LVM snapshots of our own: made together, known by name and tag, watched, and never left behind.

A snapshot is tagged as it is made, in one command, so that a killed run's snapshots are found at the next
start. Names are `xen2kvm-JOB-VOLUME-PASS`; the tags say the same, and in which boot of the host it was made.
"""

import re
import shlex
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from blocksync.changes.lvm import LogicalVolume, check_name, dm_name, tagged
from blocksync.errors import BlocksyncError, Failed, Refused, Usage
from blocksync.foreign import shown, shown_bytes
from blocksync.hosts.runner import Run, output_of
from blocksync.sizes import counted

PREFIX = "xen2kvm-"
TAG = "xen2kvm"

CHUNK_SIZE = 64 * 1024
"""In bytes: what a snapshot copies at the guest's first write to it, and lists. The engine's block."""

SHARE = 0.2
"""How much of a volume may be overwritten during a pass before its snapshot is lost."""

_LEAST_STORE = 64 * 2**20
_MOST_THIN_FILL = 0.95
_JOB = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.+-]{0,59}")
_BOOT = re.compile(r"[0-9a-f-]{36}")
_REMOVALS = 8
_STILL_HELD = 90


@dataclass(frozen=True, slots=True)
class Hold:
    """Commands, on the same host, that stop the guest's writes and let them go on: `xl pause`, or a freeze of
    its file systems. `release` runs whatever happens, on that host itself: also when the link is cut.
    """

    seize: tuple[str, ...]
    release: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """How full a snapshot's store is, in bytes, and why it is lost, or None."""

    used: int
    total: int
    lost: str | None


def boot_id(run: Run) -> str:
    """What the host calls its present boot. Raises Failed."""
    text = output_of(run, ["cat", "/proc/sys/kernel/random/boot_id"]).strip()
    if not _BOOT.fullmatch(text):
        raise Failed("/proc/sys/kernel/random/boot_id", f"holds no boot id: {shown(text)!r}")
    return text


def boot_of(snapshot: LogicalVolume) -> str | None:
    """The boot in which one of our snapshots was made; None for anybody else's."""
    return _tag_value(snapshot, "boot")


def pass_of(snapshot: LogicalVolume) -> int:
    """The number of the pass that one of our snapshots was made for; 0 for anybody else's."""
    return counted(_tag_value(snapshot, "pass") or "") or 0


def ours(run: Run, job: str | None = None) -> list[LogicalVolume]:
    """All snapshots of ours on the host, or a job's: what stands there at a start was left behind.

    Raises Failed.
    """
    tag = TAG if job is None else _job_tag(job)
    return [each for each in tagged(run, tag) if _is_ours(each)]


def make(
    run: Run,
    volumes: Sequence[LogicalVolume],
    *,
    job: str,
    number: int,
    share: float = SHARE,
    hold: Hold | None = None,
) -> list[LogicalVolume]:
    """Snapshots of all volumes, in their order, for pass `number` of a job.

    They are of one moment if there is a single volume, or with a `hold`. Raises Usage for names that LVM
    would refuse and for a pass that has snapshots already, Refused (guard `space`) when the stores do not
    fit, Failed when LVM or the hold fails: none of them is left then.
    """
    names = [_name(job, each, number) for each in volumes]
    stores = [store_size(each.size, share) for each in volumes]
    _check_space(run, volumes, stores)
    tags = [TAG, _job_tag(job), f"{TAG}-pass-{number}", f"{TAG}-boot-{boot_id(run)}"]
    wanted = [f"{volume.group}/{name}" for volume, name in zip(volumes, names, strict=True)]
    taken = [each for each in ours(run, job) if each.full_name in wanted]
    if taken:
        raise Usage(taken[0].path, "was left by an earlier run", "remove it first, or number the pass anew")
    commands = [
        _lvcreate(volume, name, size, tags) for volume, name, size in zip(volumes, names, stores, strict=True)
    ]
    try:
        status, output = run(["sh", "-c", _script(commands, hold)])
        _check_made(status, output, hold)
        made = {each.full_name: each for each in ours(run, job)}
        return [made[name] for name in wanted]
    except BaseException:
        # What broke first is what the user has to know; what is left is found at the next start.
        with suppress(BlocksyncError):
            remove(run, [each for each in ours(run, job) if each.full_name in wanted])
        raise


def remove(run: Run, snapshots: Iterable[LogicalVolume]) -> None:
    """Remove snapshots of ours; one that is gone already is fine. Raises Usage for a volume that is not one
    of ours, Failed when LVM does not let go of one.
    """
    left = list(snapshots)
    for snapshot in left:
        if not _is_ours(snapshot):
            raise Usage(snapshot.path, "is no snapshot of ours", "remove it yourself, with lvremove")
    output = b""
    for attempt in range(_REMOVALS):
        there = {each.uuid for each in tagged(run, TAG)} if left else set()
        left = [each for each in left if each.uuid in there]
        if not left:
            return
        status, output = run(["lvremove", "--force", *(each.full_name for each in left)])
        if status == 0:
            return
        # udev looks into a new device, and holds it as long as it does.
        time.sleep(0.25 * attempt)
    names = " ".join(each.full_name for each in left)
    raise Failed(names, f"cannot be removed: {shown_bytes(output)}", f"see who has it open; lvremove {names}")


def fill(run: Run, snapshot: LogicalVolume) -> Fill:
    """How full a snapshot is. Thin ones fill their pool. Raises Failed."""
    name = dm_name(snapshot.group, snapshot.pool) + "-tpool" if snapshot.is_thin else snapshot.dm_name
    return parse_fill(output_of(run, ["dmsetup", "status", name]))


def parse_fill(status: str) -> Fill:
    """What `dmsetup status` says of a snapshot or a thin pool.

    Sources: the kernel's drivers/md/dm-snap.c (`USED/TOTAL METADATA` in sectors, or one word) and
    Documentation/admin-guide/device-mapper/thin-provisioning.rst (`TRANSACTION META/META DATA/DATA ...`, in
    blocks).
    """
    fields = status.split()
    kind, rest = (fields[2], fields[3:]) if len(fields) > 3 else ("", [])
    if kind in {"snapshot", "thin-pool"}:
        usage = rest[2] if kind == "thin-pool" and len(rest) > 2 else rest[0]
        used, total = (counted(each) for each in usage.partition("/")[::2])
        if used is not None and total is not None:
            unit = 512 if kind == "snapshot" else 1
            return Fill(used * unit, total * unit, "it is full" if used >= total else None)
    words = shown(" ".join(rest))
    return Fill(0, 0, f"the kernel calls it {words or 'no snapshot'}")


def store_size(size: int, share: float) -> int:
    """Bytes to set aside for a snapshot of `size` bytes of which a share is overwritten: never more than a
    store can use, which is a header, every chunk, and their metadata.
    """
    chunks = -(-size // CHUNK_SIZE)
    areas = chunks // (CHUNK_SIZE // 16) + 1
    most = (chunks + areas + 1) * CHUNK_SIZE
    return min(most, max(int(size * share), _LEAST_STORE))


def _is_ours(volume: LogicalVolume) -> bool:
    return volume.is_snapshot and volume.name.startswith(PREFIX) and TAG in volume.tags


def _tag_value(snapshot: LogicalVolume, key: str) -> str | None:
    start = f"{TAG}-{key}-"
    return next((tag.removeprefix(start) for tag in snapshot.tags if tag.startswith(start)), None)


def _job_tag(job: str) -> str:
    if not _JOB.fullmatch(job):
        raise Usage(
            f"job {job!r}", "is no name for a snapshot's tag", "use letters, digits, '_', '.', '+' and '-'"
        )
    return f"{TAG}-job-{job}"


def _name(job: str, volume: LogicalVolume, number: int) -> str:
    _job_tag(job)
    name = f"{PREFIX}{job}-{volume.name}-{number}"
    check_name(volume.group, name)
    return name


def _lvcreate(volume: LogicalVolume, name: str, size: int, tags: Sequence[str]) -> list[str]:
    command = ["lvcreate", "--snapshot", "--name", name, "--permission", "r"]
    command += [word for tag in tags for word in ("--addtag", tag)]
    # A thin snapshot has no store of its own, and would stay inactive without -kn.
    own = ["-kn"] if volume.is_thin else ["--chunksize", f"{CHUNK_SIZE}b", "--size", f"{size}b"]
    return [*command, *own, volume.full_name]


def _script(commands: Sequence[Sequence[str]], hold: Hold | None) -> str:
    """One shell on the volumes' host does it all: a guest is not held over a link that may be cut."""
    lines = ["exec </dev/null"]
    if hold is not None:
        release = shlex.join(hold.release)
        lines += [
            f"release() {{ status=$?; trap - EXIT; {release} >&2 || status={_STILL_HELD}; exit $status; }}",
            "trap release EXIT",
            "trap 'exit 143' HUP INT TERM PIPE",
            f"{shlex.join(hold.seize)} >&2 || {{ status=$?; trap - EXIT; {release} >&2; exit $status; }}",
        ]
    lines += [f"{shlex.join(command)} >&2 || exit" for command in commands]
    return "\n".join(lines)


def _check_made(status: int, output: bytes, hold: Hold | None) -> None:
    cause = shown_bytes(output) or f"ended with status {status}"
    if hold is not None and status == _STILL_HELD:
        raise Failed(
            shlex.join(hold.release), f"failed: {cause}", "the guest may still be held: run it by hand"
        )
    if status:
        raise Failed("lvcreate", cause, "see that the group has room, and no snapshot of that name")


def _check_space(run: Run, volumes: Sequence[LogicalVolume], stores: Sequence[int]) -> None:
    wanted: dict[str, int] = {}
    for volume, size in zip(volumes, stores, strict=True):
        if volume.is_thin:
            _check_pool(run, volume)
        else:
            wanted[volume.group] = wanted.get(volume.group, 0) + size
    for group, size in wanted.items():
        options = ["--noheadings", "--units", "b", "--nosuffix", "-o", "vg_free,vg_extent_size"]
        fields = output_of(run, ["env", "LC_ALL=C", "vgs", *options, group]).split()
        free, extent = map(counted, fields) if len(fields) == 2 else (None, None)
        if free is None or extent is None:
            raise Failed("vgs", f"printed what cannot be read: {shown(' '.join(fields))!r}")
        # Each store is rounded up to whole extents.
        needed = size + extent * len(volumes)
        if free < needed:
            raise Refused(
                f"volume group {group}",
                f"has {free} bytes free, and the snapshots' stores need {needed}",
                f"vgextend {group}, or let the snapshots hold fewer changes",
                guard="space",
            )


def _check_pool(run: Run, volume: LogicalVolume) -> None:
    state = fill(run, volume)
    if state.lost or state.used > _MOST_THIN_FILL * state.total:
        raise Refused(
            f"thin pool {volume.group}/{volume.pool}",
            state.lost or f"has {state.used} of {state.total} blocks in use",
            f"lvextend {volume.group}/{volume.pool}",
            guard="space",
        )
