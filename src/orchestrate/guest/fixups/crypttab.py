"""/etc/crypttab: encrypted volumes by the UUID of their LUKS header.

Source for the format: crypttab(5).
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import rewritten
from orchestrate.guest.files.reading import Reading

NAME = "crypttab"
REASON = "crypttab names LUKS volumes by UUID and keyless ones by partition, because Xen's device names go"

PATH = "/etc/crypttab"
_DEVICE = re.compile(r"(\s*[^\s#]\S*\s+)(/dev/\S+)(.*)", re.DOTALL)


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """The second field of every entry that is one of the guest's volumes."""
    before = guest.read(PATH)
    if before is None:
        return ()
    after = rewritten(before, lambda line: _line(line, facts))
    return (Edit(PATH, after, REASON),) if after != before else ()


def _line(line: str, facts: Facts) -> str:
    match = _DEVICE.fullmatch(line)
    volume = facts.volume(match[2]) if match else None
    if match is None or volume is None:
        return line
    # Swap with a random key is written anew at each boot: no UUID on it lasts.
    lasts = volume.filesystem == "crypto_LUKS"
    device = facts.lasting_name(volume) if lasts else facts.partition_device(volume)
    return match[1] + device + match[3]
