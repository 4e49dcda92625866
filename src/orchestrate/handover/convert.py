"""What makes a copied disk a KVM guest's: the fix-ups inside it and GRUB in front of it.

Everything is done to an overlay: a rehearsal boots it, a cutover copies what was written to it onto the
target. So it is known what that was, and a cutover that is killed there copies just these blocks again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from blocksync.devices import target as targets
from blocksync.devices.target import Piece
from blocksync.digests import trust
from blocksync.errors import Refused
from orchestrate.guest.boot import grub, grub_image, kernels
from orchestrate.guest.files.mounts import MountSpec, mounted
from orchestrate.guest.files.tree import GuestTree
from orchestrate.guest.fixups import fixup
from orchestrate.job.folder import Job, Phase
from orchestrate.job.stopwatch import Stopwatch
from orchestrate.kvm.overlay import overlay
from orchestrate.layout import boot_code
from orchestrate.plan.compose import MOUNTABLE, facts_of
from orchestrate.plan.model import Plan, Volume, table

# Only file systems with files that fix-ups read or write; the others are not touched.
_NEEDED = frozenset({"/", "/boot", "/usr", "/var", "/etc"})


def finish(plan: Plan, raw: Path, watch: Stopwatch) -> None:
    """Apply the plan's fix-ups to the disk `raw` and make it boot. Durable when this returns."""
    with watch.step("fix-ups"), mounted(raw, mounts(plan)) as tree:
        apply_fixups(plan, tree)
        _write_grub_files(plan, tree)
    with watch.step("boot loader"):
        image = grub_image.make(grub.early_config(_booting(plan)), plan.boot_volume.filesystem)
        targets.write_ranges(raw, boot_code.place(image.boot, image.core, table(plan).boot_area))


def repair(job: Job, watch: Stopwatch) -> None:
    """Make the job's target a KVM guest's disk, as `finish` does. Durable when this returns.

    Until the state says which blocks are written, which is before the first of them, the target is as it was.
    """
    target = job.plan.target
    with overlay(target, job.folder) as layer:
        with layer.raw() as raw:
            finish(job.plan, raw, watch)
        with watch.step("write the fix-ups"):
            pieces = layer.pieces()
            _note(job, pieces)
            layer.let_go()
            targets.write_pieces(target, pieces, layer.qcow2)


def rehearse(job: Job) -> None:
    """Do to an overlay that is thrown away what `repair` does to the target. Raises as that would."""
    with overlay(job.plan.target, job.folder) as layer, layer.raw() as raw:
        finish(job.plan, raw, Stopwatch())


def _note(job: Job, pieces: Sequence[Piece]) -> None:
    """Say durably which blocks of each volume are about to be written by no pass."""
    plan = job.plan
    repaired = {volume.device: tuple(_inside(volume, pieces)) for volume in plan.copied}
    job.remember(replace(job.state(), phase=Phase.FINISHING, repaired=repaired))
    for volume in plan.copied:
        trust.give_up(
            job.digests(volume),
            plan.target,
            list(repaired[volume.device]),
            offset=volume.partition.offset,
            size=volume.size,
        )


def _inside(volume: Volume, pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """The parts of pieces of the disk that are in a volume: offset in it, and length."""
    first, end = volume.partition.offset, volume.partition.offset + volume.size
    for piece in pieces:
        low, high = max(first, piece.offset), min(end, piece.offset + piece.length)
        if low < high:
            yield low - first, high - low


def apply_fixups(plan: Plan, tree: GuestTree) -> None:
    """Apply the fix-ups that stand in the plan, in their own order."""
    chosen = {choice.name for choice in plan.fixup}
    rules = [rule for rule in fixup.ALL if rule.name in chosen]
    tree.apply(fixup.planned(tree, facts_of(plan), rules))


def _write_grub_files(plan: Plan, tree: GuestTree) -> None:
    found = kernels.require(tree, plan.guest.name)
    tree.apply(grub.edits(tree, _booting(plan), found, grub_image.modules()))


def _booting(plan: Plan) -> grub.Booting:
    separate = plan.boot_volume is not plan.root
    return grub.Booting(
        root_uuid=_uuid(plan.root),
        boot_uuid=_uuid(plan.boot_volume),
        boot_prefix="" if separate else "/boot",
        arguments=plan.boot.arguments,
        title=plan.guest.name,
    )


def _uuid(volume: Volume) -> str:
    if volume.uuid is None:
        raise Refused(
            f"{volume.source} ({volume.device})",
            "its file system has no UUID to boot by",
            f"give it one while the guest is down: tune2fs -U random {volume.path}",
            guard="no-uuid",
        )
    return volume.uuid


def mounts(plan: Plan) -> list[MountSpec]:
    """The partitions whose files fix-ups read or write, with their places in the guest."""
    return [
        MountSpec(volume.partition.offset, volume.partition.size, volume.filesystem, volume.mountpoint)
        for volume in plan.copied
        if volume.mountpoint in _NEEDED and volume.filesystem in MOUNTABLE
    ]
