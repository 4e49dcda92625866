"""Caches of which devices there were, which programs believe until they are gone.

Sources: blkid.tab of libblkid (/etc before 2.17), LVM's /etc/lvm/cache/.cache and its devices file
(lvmdevices(8)): with the latter LVM looks at no device that is not in it.
"""

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.reading import Reading

NAME = "stale-caches"
REASON = "caches of device names go, because they name Xen's devices and are made anew"

_PATHS = (
    "/etc/blkid.tab",
    "/etc/blkid.tab.old",
    "/etc/blkid/blkid.tab",
    "/etc/blkid/blkid.tab.old",
    "/etc/lvm/.cache",
    "/etc/lvm/cache/.cache",
    "/etc/lvm/devices/system.devices",
)


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Each that the guest has is taken away."""
    return tuple(Edit(path, None, REASON) for path in _PATHS if guest.read(path) is not None)
