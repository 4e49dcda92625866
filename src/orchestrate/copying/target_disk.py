"""The target disk around the volumes' bytes: its partition table, and swap made anew."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid5

from blocksync.devices import contents, guards
from blocksync.devices import device as devices
from blocksync.devices import target as targets
from blocksync.errors import Failed, Refused, Usage
from blocksync.hosts import programs
from blocksync.hosts.host import ThisHost
from blocksync.progress import Progress, Report
from orchestrate.guest import volumes
from orchestrate.layout import presence
from orchestrate.layout.presence import Presence
from orchestrate.plan.model import Plan, Volume, table

SWAP_HEADER = 4096
GUARDS = frozenset({"not-empty"})
"""Guards of the disk as a whole that `--override` takes; passes know nothing of them."""
_SILENT_SECONDS = 2.0
_HERE = ThisHost()


def bring_table(
    plan: Plan, *, dry_run: bool, overrides: frozenset[str], tasks: Callable[[str], Report]
) -> bool:
    """Write the partition table where it is missing; True if that was needed.

    Where it is missing nothing vouches for the target: it must be empty, wherever it will be written.
    """
    guards.check_overrides(overrides - GUARDS)
    target = plan.target
    if not target.exists():
        if dry_run:
            return True
        guards.out_of_reach(target, overrides)
        targets.create_sparse(target, plan.disk.size)
    size = volumes.size(_HERE, target)
    if size != plan.disk.size:
        raise Refused(
            target,
            f"has {size} bytes, the plan was made for {plan.disk.size}",
            "make the plan again with `xen2kvm plan`",
            guard="size",
        )
    ranges = presence.encode(table(plan))
    found = presence.compare((data, devices.read_range(target, offset, len(data))) for offset, data in ranges)
    if found is Presence.SAME:
        return False
    _refuse_foreign(target, found)
    if "not-empty" not in overrides:
        _require_empty(plan, tasks)
    if not dry_run:
        targets.write_ranges(target, ranges, overrides=overrides)
    return True


def _refuse_foreign(target: Path, found: Presence) -> None:
    there = guards.probe(target, 0, devices.measure(target).size)
    if there is not None and not there.is_table:
        raise _foreign(target, f"{there.type} {there.uuid}".rstrip(), "signature")
    if found is Presence.DIFFERENT:
        kind = f"a different {there.type} partition table" if there else "other data where its table belongs"
        raise _foreign(target, kind, "table")


def _foreign(target: Path, what: str, guard: str) -> Refused:
    return Refused(
        target,
        f"carries {what}",
        "name an empty target, or clear this one with `wipefs --all --backup` if it is truly free",
        guard=guard,
    )


def _require_empty(plan: Plan, tasks: Callable[[str], Report]) -> None:
    device = devices.measure(plan.target)
    ranges = presence.filled(table(plan))
    look = _SlowLook(tasks, sum(size for _, size, _ in ranges))
    with devices.open_source(device, direct=device.is_block) as opened:
        for offset, size, name in ranges:
            place = contents.first_data(opened, offset, size, look.told)
            if place is not None:
                raise Refused(
                    plan.target,
                    f"holds data at byte {place}, in {name}, and nothing says that it is this guest's",
                    "name an empty target; a logical volume made anew may still hold what was there before: "
                    "if nobody needs that, clear it (`blkdiscard --zeroout`), or --override not-empty",
                    guard="not-empty",
                )
            look.done += size


class _SlowLook:
    """Shows that a target is being looked at, once that takes long."""

    def __init__(self, tasks: Callable[[str], Report], total: int) -> None:
        self._tasks = tasks
        self._total = total
        self._started = time.monotonic()
        self._report: Report | None = None
        self.done = 0

    def told(self, count: int) -> None:
        """`count` bytes of the present range were looked at."""
        seconds = time.monotonic() - self._started
        if self._report is None and seconds > _SILENT_SECONDS:
            self._report = self._tasks("is the target empty")
        if self._report is not None:
            looked_at = self.done + count
            self._report(
                Progress(
                    phase="look",
                    bytes_looked_at=looked_at,
                    bytes_done=looked_at,
                    bytes_read=looked_at,
                    bytes_moved=looked_at,
                    bytes_total=self._total,
                    bytes_changed=0,
                    bytes_written=0,
                    seconds=seconds,
                )
            )


def bring_swap(plan: Plan, volume: Volume, *, dry_run: bool, overrides: frozenset[str]) -> bool:
    """Make swap anew in its partition unless it is there; True if it was written."""
    header = swap_header(volume, plan.disk.identity)
    offset = volume.partition.offset
    if not plan.target.exists():
        return True
    if devices.read_range(plan.target, offset, len(header)) == header:
        return False
    if not dry_run:
        targets.write_ranges(plan.target, ((offset, header),), overrides=overrides)
    return True


def swap_header(volume: Volume, disk_identity: str) -> bytes:
    """The first page of a swap area of the partition's size with the volume's UUID and label, by mkswap.

    Swap that has no UUID gets one derived from the disk's, the same each time.
    """
    uuid = volume.uuid or str(uuid5(UUID(disk_identity), volume.device))
    # In memory: nothing stays behind, whatever ends this process.
    area = os.memfd_create("swap")
    try:
        os.truncate(area, volume.partition.size)
        _make_swap(area, uuid, volume)
        return os.pread(area, SWAP_HEADER, 0)
    finally:
        os.close(area)


def _make_swap(area: int, uuid: str, volume: Volume) -> None:
    label = ("--label", volume.label) if volume.label else ()
    argv = [programs.find("mkswap"), "--uuid", uuid, *label, f"/proc/self/fd/{area}"]
    try:
        programs.run(argv, check=True, capture_output=True, text=True, pass_fds=(area,))
    except OSError as error:
        raise Failed("mkswap", error.strerror or "cannot be run", "apt-get install util-linux") from error
    except subprocess.CalledProcessError as error:
        raise Usage(f"volume {volume.device}", f"mkswap: {error.stderr.strip()}") from error
