"""What makes a copied disk a KVM guest's: the fix-ups inside it and GRUB in front of it.

The same code finishes an overlay (rehearsal) and the target itself (cutover).
"""

from pathlib import Path

from blocksync import targets
from blocksync.errors import Refused
from orchestrate.guest import fixup, grub, grub_image, kernels
from orchestrate.guest.mounts import MountSpec, mounted
from orchestrate.guest.tree import GuestTree
from orchestrate.layout import boot_code
from orchestrate.plan.compose import MOUNTABLE, facts_of
from orchestrate.plan.model import Plan, Volume, table
from orchestrate.stopwatch import Stopwatch

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
