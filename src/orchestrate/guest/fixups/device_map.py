"""device.map: which disk GRUB's (hd0) is.

Source: the GRUB manual, "Device map". grub-install and update-grub believe the file before their own eyes.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies, rewritten, with_added
from orchestrate.guest.files.reading import Reading

NAME = "device-map"
REASON = "GRUB's device map names the new disk, because an old one makes grub-install fail"

_PATHS = ("/boot/grub/device.map", "/boot/grub2/device.map")
_DISK = re.compile(r"\s*\((hd[0-9]+)(,[^)]*)?\)\s+(\S.*?)\s*")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """`(hd0)` is the disk, other hard disks are gone; a guest without the file needs none."""
    changed = []
    for path in _PATHS:
        before = guest.read(path)
        if before is not None:
            after = _mapped(before, f"(hd0)\t{facts.disk}", facts.disk)
            if after != before:
                changed.append(Edit(path, after, REASON))
    return tuple(changed)


def _mapped(content: bytes, entry: str, disk: str) -> bytes:
    done: list[str] = []

    def line(body: str) -> str | None:
        match = _DISK.fullmatch(body)
        if match is None:
            return body
        if match[1] != "hd0" or match[2] or done:
            return None
        done.append(body)
        return body if match[3] == disk else entry

    after = rewritten(content, line)
    return after if done or entry in bodies(after) else with_added(after, [entry])
