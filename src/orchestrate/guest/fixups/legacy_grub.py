"""menu.lst and grub.conf: GRUB legacy's menu, which pygrub and PV-GRUB read under Xen.

Source: the GRUB legacy manual, and the automagic comments of Debian's update-grub (`# kopt=`, `# groot=`).
"""

import re

from orchestrate.guest.boot.kernel_arguments import for_kvm
from orchestrate.guest.facts import Facts, GuestVolume
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import rewritten
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups.fstab import mountpoints, volume_of
from orchestrate.guest.fixups.nic_names import kernel_arguments

NAME = "legacy-grub"
REASON = "GRUB legacy's menu names the partition and the serial console, because the disk has a table now"

_PATHS = ("/boot/grub/menu.lst", "/boot/grub/grub.conf")
_KERNEL = re.compile(r"(\s*kernel\s+\S+\s+)(\S.*)")
_OPTIONS = re.compile(r"(#\s*kopt(?:_[0-9_]+)?=)(.*)")
_ROOT = re.compile(r"((?:#\s*groot=|\s*root\s+))\(hd0\)(.*)")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """`(hd0)` becomes `(hd0,N)`, and each kernel's command line one for KVM."""
    changed = []
    boot = _boot_volume(guest, facts)
    words = kernel_arguments(guest, facts)
    for path in _PATHS:
        before = guest.read(path)
        if before is not None:
            after = rewritten(before, lambda line: _line(line, boot, facts, words))
            if after != before:
                changed.append(Edit(path, after, REASON))
    return tuple(changed)


def _boot_volume(guest: Reading, facts: Facts) -> GuestVolume | None:
    """The volume that holds /boot: one of its own, else the root."""
    for entry in mountpoints(guest.read("/etc/fstab") or b""):
        if entry.mountpoint == "/boot":
            return volume_of(entry, facts)
    return facts.volume(facts.root_device)


def _line(line: str, boot: GuestVolume | None, facts: Facts, words: tuple[str, ...]) -> str:
    root = _ROOT.fullmatch(line)
    if root and boot:
        return f"{root[1]}(hd0,{boot.partition - 1}){root[2]}"  # GRUB legacy counts from zero
    arguments = _OPTIONS.fullmatch(line) or _KERNEL.fullmatch(line)
    # A kernel line that loads a hypervisor is not Linux's command line.
    if arguments is None or "xen.gz" in arguments[1] or "/xen-" in arguments[1]:
        return line
    return arguments[1] + for_kvm(arguments[2], facts, words)
