"""SELinux: what was written from outside gets the labels of its policy.

Sources: selinux_config(5), and selinux-autorelabel of policycoreutils: while /.autorelabel is there, a boot
labels every file anew, takes it away and boots again. A file that replaces another keeps its label, a new one
gets its folder's; whether the policy means it so is known in the guest alone.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies
from orchestrate.guest.files.reading import Reading

NAME = "selinux-relabel"
REASON = "SELinux labels all files anew at the first boot, because those written from outside may lack theirs"

PATH = "/.autorelabel"
_CONFIG = "/etc/selinux/config"
_MODE = re.compile(r"\s*SELINUX\s*=\s*(\w+)\s*", re.IGNORECASE)


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """The file that asks for it, where SELinux is on: permissive is as good as enforcing tomorrow."""
    modes = [match[1].lower() for match in map(_MODE.fullmatch, bodies(guest.read(_CONFIG) or b"")) if match]
    if not modes or modes[-1] not in {"enforcing", "permissive"} or guest.read(PATH) is not None:
        return ()
    return (Edit(PATH, b"", REASON),)
