"""udev's remembered NIC names, which its generator wrote when a MAC first appeared.

Sources: udev's 75-persistent-net-generator.rules; z25_persistent-net.rules is Debian etch's name for it.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import rewritten
from orchestrate.guest.files.reading import Reading

NAME = "persistent-net"
REASON = "udev forgets NICs that are not the guest's own, because they would take eth0 from the one that is"

PATHS = ("/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/z25_persistent-net.rules")
_ADDRESS = re.compile(r"(?:ATTRS?|SYSFS)\{address\}==\"([0-9A-Fa-f:]{17})\"")
_NAMES = re.compile(r"\bNAME:?=\"([^\"]+)\"")
# Keys that hold on Xen's bus only; a rule that has one matches nothing under KVM.
_XEN = re.compile(r"(?:DRIVERS?|SUBSYSTEMS?|BUS|KERNELS|ID)==\"(?:vif|xen|xen[-_]netfront|xennet)[^\"]*\"")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Rules of NICs that keep their MAC stay, and so do the guest's name and its comments."""
    kept = {nic.mac.lower() for nic in facts.nics}
    changed = []
    for path in PATHS:
        before = guest.read(path)
        after = before if before is None else rewritten(before, lambda line: _line(line, kept))
        if after is not None and after != before:
            changed.append(Edit(path, after, REASON))
    return tuple(changed)


def remembered(guest: Reading) -> dict[str, str]:
    """Name of each NIC that the rules name, by its MAC in lower case, whatever the rest of the rule says."""
    names = {}
    for path in PATHS:
        for line in (guest.read(path) or b"").decode("utf-8", "replace").split("\n"):
            address, name = _ADDRESS.search(line), _NAMES.search(line)
            if address and name and not line.lstrip().startswith("#"):
                names[address[1].lower()] = name[1]
    return names


def names_nic(line: str, mac: str) -> bool:
    """Whether `line` is a rule that gives the NIC with `mac` a name, under KVM too."""
    address = _ADDRESS.search(line)
    applies = not line.lstrip().startswith("#") and not _XEN.search(line)
    return applies and address is not None and address[1].lower() == mac and bool(_NAMES.search(line))


def _line(line: str, kept: set[str]) -> str | None:
    if line.lstrip().startswith("#") or line.endswith("\\"):
        return line
    address = _ADDRESS.search(line)
    if address is None:
        return line
    return line if address[1].lower() in kept and not _XEN.search(line) else None
