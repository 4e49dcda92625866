"""lvm.conf: which devices LVM looks at.

Source: lvm.conf(5): `filter` and `global_filter` are lists of "a|regex|" and "r|regex|", and the
first match wins.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import rewritten
from orchestrate.guest.files.reading import Reading

NAME = "lvm-filter"
REASON = "LVM's filter accepts virtio's disks as it accepts Xen's, because it would find no volume group"

PATH = "/etc/lvm/lvm.conf"
_FILTER = re.compile(r"\s*(?:global_)?filter\s*=.*")
_XEN = re.compile(r"\"a[^\"]*xvd[^\"]*\"")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Beside each pattern that accepts xvd one that accepts vd; Xen's stay."""
    before = guest.read(PATH)
    after = before if before is None else rewritten(before, _line)
    return (Edit(PATH, after, REASON),) if after is not None and after != before else ()


def _line(line: str) -> str:
    if not _FILTER.fullmatch(line):
        return line

    def both(match: re.Match[str]) -> str:
        virtio = match[0].replace("xvd", "vd")
        return match[0] if virtio in line else f"{virtio}, {match[0]}"

    return _XEN.sub(both, line)
