"""The way back with the data: what the guest wrote on KVM goes into its Xen volumes.

The fix-ups are undone on an overlay of the target, which keeps its bytes. What then differs from a volume is
written into it, and the whole volume is proven equal to its partition. Swap is left alone.
"""

from dataclasses import dataclass
from pathlib import Path

from blocksync.devices.guards import Signature
from blocksync.errors import Differences, Refused
from blocksync.passes import PassReport, PassRequest
from orchestrate.copying.drift import refuse_drift
from orchestrate.copying.passes import Tasks, VolumePass
from orchestrate.copying.source import Source
from orchestrate.guest.files.loop_devices import reading
from orchestrate.guest.files.mounts import mounted
from orchestrate.handover import convert
from orchestrate.job.folder import Job, Phase
from orchestrate.job.send_back_mark import clear, is_torn, mark
from orchestrate.job.stopwatch import Stopwatch
from orchestrate.kvm.overlay import overlay
from orchestrate.plan.model import Volume


@dataclass(frozen=True, slots=True)
class GiveBackReport:
    """What was written into each volume, what was proven of it, and the guest's files whose fix-ups were
    undone: these are as they were before the cutover, whatever the guest wrote into them on KVM.
    """

    passes: tuple[VolumePass, ...]
    proofs: dict[str, str]
    restored: tuple[str, ...]


def run(job: Job, source: Source, tasks: Tasks, watch: Stopwatch) -> GiveBackReport:
    """Bring the volumes of `source` to what the guest left on the target; durable and proven on return.

    The guest must be stopped on both sides. From before the first write to the end of the proof the volumes
    are marked as torn (see orchestrate.job.send_back_mark); after an interruption the same call goes on.
    Raises `Refused` when the target is no guest's disk, or a running guest writes to it; `Differences` when
    a volume is not equal to its partition at the end; and what a pass raises.
    """
    plan = job.plan
    _require_a_guest_s_disk(job)
    if not is_torn(job.folder):
        refuse_drift(plan, source.host)
    with overlay(plan.target, job.folder) as layer, layer.raw() as raw:
        with watch.step("undo the fix-ups"), mounted(raw, convert.mounts(plan)) as tree:
            restored = tree.restore()
        mark(job)
        with watch.step("send the changes back"):
            done = tuple(VolumePass(volume, _send(source, raw, volume, tasks)) for volume in plan.copied)
        with watch.step("verify the Xen volumes"):
            proofs = {volume.device: _prove(source, raw, volume, tasks) for volume in plan.copied}
    clear(job)
    return GiveBackReport(done, proofs, restored)


def _require_a_guest_s_disk(job: Job) -> None:
    if job.state().phase is not Phase.HANDED_OVER:
        raise Refused(
            job.plan.disk.path,
            f"has not been handed over to {job.plan.guest.name}: its Xen volumes are newer",
            "nothing is to be sent back; start the guest on Xen",
            guard="not-handed-over",
        )


def _send(source: Source, raw: Path, volume: Volume, tasks: Tasks) -> PassReport:
    with reading(raw, volume.partition.offset, volume.size) as partition:
        request = PassRequest(
            source=partition,
            target=Path(volume.path),
            size=volume.size,
            known_signatures=frozenset({Signature(volume.filesystem, volume.uuid or "")}),
        )
        return source.send(request, tasks(volume.device))


def _prove(source: Source, raw: Path, volume: Volume, tasks: Tasks) -> str:
    with reading(raw, volume.partition.offset, volume.size) as partition:
        found = source.compare(partition, Path(volume.path), volume.size, tasks(volume.device))
    if not found.equal:
        raise Differences(
            volume.path,
            f"differs from its partition by {found.differing.total} bytes after all was sent",
            "see that nobody else writes to it, and run the same command again",
        )
    return f"{found.hash} {found.source_root}"
