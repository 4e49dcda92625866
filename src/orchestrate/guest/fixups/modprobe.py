"""Module aliases that tie a NIC or the disks to Xen's drivers.

Source: modprobe.conf(5), modprobe.d(5).
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import rewritten
from orchestrate.guest.files.reading import Reading

NAME = "modprobe"
REASON = "module aliases name virtio's drivers, because Xen's find no device under KVM"

_FILES = ("/etc/modprobe.conf", "/etc/modules.conf", "/etc/conf.modules")
_FOLDER = "/etc/modprobe.d"
_NIC = re.compile(r"(\s*alias\s+\S+\s+)(?:xennet|xen[-_]netfront|xen[-_]vnif)(\s*(?:#.*)?)")
_DISK = re.compile(r"(\s*alias\s+\S+\s+)(?:xenblk|xen[-_]blkfront|xen[-_]vbd)(\s*(?:#.*)?)")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """`alias eth0 xennet` and `alias scsi_hostadapter xenblk`, in every spelling."""
    changed = []
    for path in (*_FILES, *(f"{_FOLDER}/{name}" for name in guest.names(_FOLDER))):
        before = guest.read(path)
        after = before if before is None else rewritten(before, _line)
        if after is not None and after != before:
            changed.append(Edit(path, after, REASON))
    return tuple(changed)


def _line(line: str) -> str:
    for pattern, module in ((_NIC, "virtio_net"), (_DISK, "virtio_blk")):
        match = pattern.fullmatch(line)
        # An alias for a driver's own name (`alias xenbus:vif xen_netfront`) says what a Xen device needs.
        if match and ":" not in match[1]:
            return match[1] + module + match[2]
    return line
