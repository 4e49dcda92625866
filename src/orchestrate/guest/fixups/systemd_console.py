"""systemd's gettys on Xen's consoles.

Source: systemd-getty-generator(8): a getty on the serial port starts by itself when console=ttyS0 is on the
kernel's command line, and one on hvc0 when there is an hvc0; so nothing is lost on the way back to Xen.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.reading import Reading

NAME = "systemd-console"
REASON = (
    "systemd waits no more for a getty on Xen's console, because a device that never comes delays the boot"
)

_FOLDERS = ("/etc/systemd/system/getty.target.wants", "/etc/systemd/system/multi-user.target.wants")
_UNIT = re.compile(r"(?:serial-)?getty@[hx]vc[0-9]+\.service")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """The links that enable such a unit are taken away."""
    return tuple(
        Edit(f"{folder}/{name}", None, REASON)
        for folder in _FOLDERS
        for name in guest.names(folder)
        if _UNIT.fullmatch(name)
    )
