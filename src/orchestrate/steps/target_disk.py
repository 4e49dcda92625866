"""The target disk around the volumes' bytes: its partition table, and swap made anew."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid5

from blocksync import devices, programs, targets
from blocksync.errors import Failed, Refused, Usage
from orchestrate import volumes
from orchestrate.hosts import ThisHost
from orchestrate.layout import presence
from orchestrate.layout.presence import Presence
from orchestrate.plan.model import Plan, Volume, table

SWAP_HEADER = 4096
_HERE = ThisHost()


def bring_table(plan: Plan, *, dry_run: bool, overrides: frozenset[str]) -> bool:
    """Write the partition table where it is missing; True if that was needed."""
    target = plan.target
    if not target.exists():
        if dry_run:
            return True
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
    if not dry_run:
        targets.write_ranges(target, ranges, overrides=overrides)
    return True


def _refuse_foreign(target: Path, found: Presence) -> None:
    there = volumes.probe(_HERE, target)
    if found is Presence.DIFFERENT:
        kind = (
            f"a different {there.table} partition table"
            if there.table
            else "other data where its table belongs"
        )
        raise Refused(
            target,
            f"carries {kind}",
            "name an empty target, or clear this one with `wipefs --all --backup` if it is truly free",
            guard="table",
        )
    if there.filesystem is not None:
        raise Refused(
            target,
            f"carries {there.filesystem} {there.uuid or ''}".rstrip(),
            "name an empty target, or clear this one with `wipefs --all --backup` if it is truly free",
            guard="signature",
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
    with TemporaryDirectory(prefix="xen2kvm-swap-") as scratch:
        area = Path(scratch, "swap")
        targets.create_sparse(area, volume.partition.size)
        argv = (
            programs.find("mkswap"),
            *("--uuid", uuid),
            *(("--label", volume.label) if volume.label else ()),
            str(area),
        )
        try:
            subprocess.run(argv, check=True, capture_output=True, text=True)
        except OSError as error:
            raise Failed("mkswap", error.strerror or "cannot be run", "apt-get install util-linux") from error
        except subprocess.CalledProcessError as error:
            raise Usage(f"volume {volume.device}", f"mkswap: {error.stderr.strip()}") from error
        return area.read_bytes()[:SWAP_HEADER]
