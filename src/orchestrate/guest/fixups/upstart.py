"""Upstart's gettys: /etc/init/NAME.conf, and /etc/event.d/NAME before Upstart 0.6.

xen-tools renames tty1's job to hvc0's. RHEL 6 has neither: its serial.conf follows the kernel's console.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import decoded, encoded
from orchestrate.guest.files.reading import Reading

NAME = "upstart"
REASON = "Upstart starts gettys on the serial port and tty1, because Xen's console is gone under KVM"

_PLACES = (("/etc/init", ".conf"), ("/etc/event.d", ""))
_XEN = ("hvc0", "xvc0")
_SCREEN = "tty1"
_SPEED = re.compile(r"\b(?:9600|19200|38400|57600)\b")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Xen's job goes; a serial one and tty1's come, if they are missing, with its text."""
    changed: list[Edit] = []
    for folder, ending in _PLACES:
        for name in (*_XEN, _SCREEN):
            job = guest.read(f"{folder}/{name}{ending}")
            if job is not None:
                changed += _jobs(guest, f"{folder}/{{}}{ending}", (name, decoded(job)), facts)
                break
        changed += [
            Edit(path, None, REASON)
            for path in (f"{folder}/{name}{ending}" for name in _XEN)
            if guest.read(path) is not None
        ]
    return tuple(changed)


def _jobs(guest: Reading, path: str, pattern: tuple[str, str], facts: Facts) -> list[Edit]:
    """The serial and the screen's job after the `pattern` of another, unless the guest has them."""
    name, text = pattern
    serial = _SPEED.sub("115200", _renamed(text, name, facts.serial_console))
    wanted = ((facts.serial_console, serial), (_SCREEN, _renamed(text, name, _SCREEN)))
    return [
        Edit(path.format(each), encoded(content), REASON)
        for each, content in wanted
        if guest.read(path.format(each)) is None
    ]


def _renamed(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{old}\b", lambda _: new, text)
