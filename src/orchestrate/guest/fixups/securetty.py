"""/etc/securetty: where root may log in.

Source: securetty(5). Without the file there is no such limit, so none is made.
"""

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies, with_added
from orchestrate.guest.files.reading import Reading

NAME = "securetty"
REASON = "root may log in on the serial port, as on Xen's console, which stays for the way back"

PATH = "/etc/securetty"


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """The serial console is added; nothing is taken out."""
    before = guest.read(PATH)
    if before is None or facts.serial_console in (body.strip() for body in bodies(before)):
        return ()
    return (Edit(PATH, with_added(before, [facts.serial_console]), REASON),)
