"""Modules that the guest's next initramfs must hold.

Sources: initramfs-tools(7) (/etc/initramfs-tools/modules), dracut.conf(5) (add_drivers), SUSE's
/etc/sysconfig/kernel (INITRD_MODULES). This changes the next initramfs, not the one that is there.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies, rewritten, with_added
from orchestrate.guest.files.reading import Reading

NAME = "initramfs-modules"
REASON = "the next initramfs holds virtio's drivers, because one made under Xen may hold only Xen's"

_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")
_INITRAMFS_TOOLS = "/etc/initramfs-tools/modules"
_DRACUT = "/etc/dracut.conf.d"
_DRACUT_FILE = f"{_DRACUT}/xen2kvm.conf"
_SUSE = "/etc/sysconfig/kernel"
_SUSE_LINE = re.compile(r"((?:DOMU_)?INITRD_MODULES=\")([^\"]*)(\".*)")
_XEN = frozenset({"xennet", "xen-vnif", "xenblk", "xen-vbd", "xen-netfront", "xen-blkfront"})


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """For whichever of the three makers of an initramfs the guest has."""
    return _initramfs_tools(guest) + _dracut(guest) + _suse(guest)


def _initramfs_tools(guest: Reading) -> tuple[Edit, ...]:
    before = guest.read(_INITRAMFS_TOOLS)
    if before is None:
        return ()
    present = {body.split()[0] for body in bodies(before) if body.split()}
    missing = [module for module in _MODULES if module not in present]
    return (Edit(_INITRAMFS_TOOLS, with_added(before, missing), REASON),) if missing else ()


def _dracut(guest: Reading) -> tuple[Edit, ...]:
    has_dracut = guest.read("/etc/dracut.conf") is not None or guest.names(_DRACUT)
    content = f'# {REASON}\nadd_drivers+=" {" ".join(_MODULES)} "\n'.encode()
    if not has_dracut or guest.read(_DRACUT_FILE) == content:
        return ()
    return (Edit(_DRACUT_FILE, content, REASON),)


def _suse(guest: Reading) -> tuple[Edit, ...]:
    before = guest.read(_SUSE)
    after = before if before is None else rewritten(before, _suse_line)
    return (Edit(_SUSE, after, REASON),) if after is not None and after != before else ()


def _suse_line(line: str) -> str:
    match = _SUSE_LINE.fullmatch(line)
    if match is None:
        return line
    present = match[2].split()
    kept = [module for module in present if module not in _XEN]
    new = [*kept, *(module for module in _MODULES if module not in kept)]
    return line if new == present else match[1] + " ".join(new) + match[3]
