"""The kernel's arguments under KVM, and what of those under Xen does not go over.

A guest that Xen starts with a kernel of its host has what the configuration says. One that a boot loader
starts (pygrub, PV-GRUB) has what its own menu says, and the configuration's words after that.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blocksync.foreign import shown
from orchestrate.guest.boot import kernel_arguments, own_menu
from orchestrate.guest.facts import Facts
from orchestrate.guest.files.reading import Reading
from orchestrate.xen.guest import XenGuest

SPEAKABLE = re.compile(r"[A-Za-z0-9_.,:/=+@%-]+")
"""An argument that GRUB takes as it stands: no quoting, no variable, no second command."""

_WORD = re.compile(r"(?:[^\s\"]|\"[^\"]*\"?)+")
# grub.cfg names the root, mounts it read-only and loads the initramfs: these are the boot loader's words.
_OF_THE_LOADER = re.compile(r"root=.*|ro|BOOT_IMAGE=.*|initrd=.*")


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments for the KVM guest, and a sentence for each that stays behind."""

    words: tuple[str, ...]
    left_behind: tuple[str, ...]


def chosen(xen: XenGuest, guest: Reading, facts: Facts, added: Sequence[str]) -> Arguments:
    """What the guest's kernel is given; `added` are words that it needs besides. Raises as reading does."""
    told: list[str] = []
    given = xen.cmdline
    if xen.bootloader is not None:
        entry = booted(xen, guest)
        if entry is None:
            told.append(
                f"{xen.source}: {shown(xen.bootloader, 60)} read a menu in the guest, and none was found: "
                "boot.arguments are those of the configuration; add what the guest needs"
            )
        else:
            given = f"{entry.arguments} {given}".strip()
    told += [_left(word, reason) for word, reason in kernel_arguments.xens(given)]
    kept = []
    for word in _WORD.findall(given):
        # The kernel itself takes the quotes off.
        plain = word.replace('"', "")
        if _OF_THE_LOADER.fullmatch(plain):
            continue
        if SPEAKABLE.fullmatch(plain):
            kept.append(plain)
        else:
            reason = (
                "GRUB gives one of its characters a meaning; put it into the guest's own settings instead"
            )
            told.append(_left(word, reason))
    words = kernel_arguments.for_kvm(" ".join(kept), facts, added).split()
    return Arguments(tuple(words), tuple(told))


def booted(xen: XenGuest, guest: Reading) -> own_menu.MenuEntry | None:
    """The entry of the guest's own menu that Xen's boot loader takes; None where there is none."""
    if xen.bootloader is None:
        return None
    loader = "pv-grub2" if "-xen" in (xen.kernel or "") and "pv" not in (xen.kernel or "") else xen.bootloader
    return own_menu.booted(guest, loader, xen.extra if loader == "pv-grub" else None)


def _left(word: str, reason: str) -> str:
    return f"kernel's arguments: not carried over: {shown(word, 80)}, because {reason}"
