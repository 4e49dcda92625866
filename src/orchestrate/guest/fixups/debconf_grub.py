"""Debian's memory of where grub-pc installs itself.

Source: debconf's database format (stanzas of `Name:` and `Value:`), and the grub-pc package's template
grub-pc/install_devices.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import decoded, encoded
from orchestrate.guest.files.reading import Reading

NAME = "debconf-grub"
REASON = "grub-pc installs itself to the new disk when it is upgraded, because the old one is not there"

PATH = "/var/cache/debconf/config.dat"
_STANZA = re.compile(r"^Name: grub-pc/install_devices\n(?:\S.*\n|[ \t].*\n)*", re.MULTILINE)
_VALUE = re.compile(r"^Value:.*$", re.MULTILINE)


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """The stanza's value; a guest that was never asked is left to ask."""
    before = guest.read(PATH)
    stanza = _STANZA.search(decoded(before)) if before is not None else None
    if before is None or stanza is None:
        return ()
    value = f"Value: {facts.disk}"
    new = _VALUE.sub(lambda _: value, stanza[0], count=1)
    if not _VALUE.search(stanza[0]):
        new = stanza[0] + value + "\n"
    text = decoded(before)
    after = encoded(text[: stanza.start()] + new + text[stanza.end() :])
    return (Edit(PATH, after, REASON),) if after != before else ()
