"""A fix-up: one rule for what changes inside a guest, and why; and the list of all of them.

A fix-up plans and never writes. It is idempotent: planned over its own result it has nothing to do.
Each lives in a module of its own that holds NAME, REASON and `edits`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from blocksync.errors import Usage
from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit, Edited
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups import (
    boot_entries,
    cloud_init,
    crypttab,
    debconf_grub,
    default_grub,
    device_map,
    fstab,
    initramfs_modules,
    inittab,
    legacy_grub,
    lvm_filter,
    modprobe,
    nic_names,
    persistent_net,
    resume,
    securetty,
    selinux_relabel,
    stale_caches,
    systemd_console,
    upstart,
)


@dataclass(frozen=True, slots=True)
class Fixup:
    """`name` is what plans and options call it, `reason` one sentence: the rule and why.

    `edits(guest, facts)` returns what must change; it is pure, and raises only what reading raises.
    """

    name: str
    reason: str
    edits: Callable[[Reading, Facts], tuple[Edit, ...]]


# nic_names before persistent_net: the rules that the latter drops may know a name.
_MODULES = (
    fstab,
    crypttab,
    resume,
    nic_names,
    persistent_net,
    systemd_console,
    inittab,
    upstart,
    securetty,
    default_grub,
    legacy_grub,
    boot_entries,
    device_map,
    debconf_grub,
    modprobe,
    initramfs_modules,
    lvm_filter,
    stale_caches,
    cloud_init,
    selinux_relabel,
)

ALL = tuple(Fixup(module.NAME, module.REASON, module.edits) for module in _MODULES)
"""Every fix-up, in the order in which they are planned."""


def by_name(name: str) -> Fixup:
    """The fix-up called `name`. Raises `Usage` when there is none."""
    for fixup in ALL:
        if fixup.name == name:
            return fixup
    raise Usage(name, "no fix-up has this name", "the names are: " + ", ".join(each.name for each in ALL))


def planned(guest: Reading, facts: Facts, fixups: Iterable[Fixup] = ALL) -> tuple[Edit, ...]:
    """The edits of `fixups` in order, each planned over what those before it leave."""
    edits: tuple[Edit, ...] = ()
    for fixup in fixups:
        edits += fixup.edits(Edited(guest, edits), facts)
    return edits
