"""`xen2kvm sync`: one pass over all volumes, into their places on the target."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid5

from msgspec.structs import replace

from blocksync import devices
from blocksync.errors import Failed, Refused, Usage
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Report
from orchestrate import volumes
from orchestrate.hosts import Host, ThisHost
from orchestrate.job import Job, Phase
from orchestrate.layout import presence
from orchestrate.layout.presence import Presence
from orchestrate.plan.compose import UNKNOWN
from orchestrate.plan.model import Plan, Volume, table
from orchestrate.source import Source

Tasks = Callable[[str], Report]
"""Gives each volume's pass something to report its progress to, by name."""

SWAP_HEADER = 4096
HERE = ThisHost()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """How a pass is made. `again` goes back to passes after a cutover, `bytes_per_second` is a bound."""

    again: bool = False
    dry_run: bool = False
    bytes_per_second: int | None = None
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class VolumePass:
    """What one volume's pass did."""

    volume: Volume
    report: PassReport


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a pass over all volumes did; `table_written` and `swap_made` name what was new besides data."""

    passes: tuple[VolumePass, ...]
    table_written: bool
    swap_made: tuple[str, ...]

    def total(self, field: str) -> int:
        """The sum over the volumes of an integer field of the engine's report."""
        return sum(getattr(one.report, field) for one in self.passes)


def run(job: Job, source: Source, request: SyncRequest, tasks: Tasks) -> SyncReport:
    """Make a pass; what changed on the target is durable when this returns."""
    state = job.state() if request.again else job.require_passes("sync")
    refuse_drift(job.plan, source.host)
    if state.phase is not Phase.PASSES:
        # The target was written by a guest or by fix-ups: believe nothing that was noted about it.
        job.forget_digests()
    report = _copy(job, source, request, tasks)
    if not request.dry_run:
        job.remember(replace(state, phase=Phase.PASSES, passes=state.passes + 1))
    return report


def refuse_drift(plan: Plan, host: Host) -> None:
    """Raise if a volume is no longer what the plan approved: missing, resized, or another file system."""
    for volume in plan.volume:
        path = Path(volume.path)
        size = volumes.size(host, path)
        if size != volume.size:
            raise Refused(
                path,
                f"has {size} bytes now, the plan was made for {volume.size}",
                "make the plan again with `xen2kvm plan`",
                guard="plan-drift",
            )
        found = volumes.probe(host, path)
        there = (found.filesystem or UNKNOWN, found.uuid)
        planned = (volume.filesystem, volume.uuid)
        if there != planned:
            raise Refused(
                path,
                f"holds {_words(there)}, the plan was made for {_words(planned)}",
                "make the plan again with `xen2kvm plan`",
                guard="plan-drift",
            )


def _words(identity: tuple[str | None, ...]) -> str:
    return " ".join(part for part in identity if part)


def _copy(job: Job, source: Source, request: SyncRequest, tasks: Tasks) -> SyncReport:
    """Table, swap and volumes, in this order, onto the target.

    The volumes come last: a write that is no pass makes the engine compare the whole target once.
    """
    plan = job.plan
    table_written = _bring_table(plan, request)
    made = tuple(volume.device for volume in plan.recreated if _bring_swap(plan, volume, request))
    done = tuple(VolumePass(volume, _pass(job, source, volume, request, tasks)) for volume in plan.copied)
    return SyncReport(done, table_written, made)


def _pass(job: Job, source: Source, volume: Volume, request: SyncRequest, tasks: Tasks) -> PassReport:
    return source.copy(
        PassRequest(
            source=Path(volume.path),
            target=job.plan.target,
            target_offset=volume.partition.offset,
            size=volume.size,
            digests=job.digests(volume),
            dry_run=request.dry_run,
            bytes_per_second=request.bytes_per_second,
            overrides=request.overrides,
        ),
        tasks(volume.device),
    )


def _bring_table(plan: Plan, request: SyncRequest) -> bool:
    """Write the partition table where it is missing; True if that was needed."""
    target = plan.target
    if not target.exists():
        if request.dry_run:
            return True
        devices.create_sparse(target, plan.disk.size)
    size = volumes.size(HERE, target)
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
    if not request.dry_run:
        devices.write_ranges(target, ranges, overrides=request.overrides)
    return True


def _refuse_foreign(target: Path, found: Presence) -> None:
    there = volumes.probe(HERE, target)
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


def _bring_swap(plan: Plan, volume: Volume, request: SyncRequest) -> bool:
    """Make swap anew in its partition unless it is there; True if it was written."""
    header = swap_header(volume, plan.disk.identity)
    offset = volume.partition.offset
    if not plan.target.exists():
        return True
    if devices.read_range(plan.target, offset, len(header)) == header:
        return False
    if not request.dry_run:
        devices.write_ranges(plan.target, ((offset, header),), overrides=request.overrides)
    return True


def swap_header(volume: Volume, disk_identity: str) -> bytes:
    """The first page of a swap area of the partition's size with the volume's UUID and label, by mkswap.

    Swap that has no UUID gets one derived from the disk's, the same each time.
    """
    uuid = volume.uuid or str(uuid5(UUID(disk_identity), volume.device))
    with TemporaryDirectory(prefix="xen2kvm-swap-") as scratch:
        area = Path(scratch, "swap")
        devices.create_sparse(area, volume.partition.size)
        argv = (
            "mkswap",
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
