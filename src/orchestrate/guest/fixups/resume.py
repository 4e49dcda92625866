"""Where the guest looks for a hibernated system: the swap that an initramfs waits for.

Sources: initramfs.conf(5) (RESUME=), dracut.conf(5) (kernel_cmdline), uswsusp's configuration.
"""

import re

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import rewritten
from orchestrate.guest.files.reading import Reading

NAME = "resume"
REASON = "resume settings name the swap by UUID, because an initramfs waits for a device that never comes"

_FILES = ("/etc/initramfs-tools/initramfs.conf", "/etc/uswsusp.conf", "/etc/suspend.conf", "/etc/dracut.conf")
_FOLDERS = (("/etc/initramfs-tools/conf.d", ""), ("/etc/dracut.conf.d", ".conf"))
_SHELL = re.compile(r"(\s*(?:export\s+)?RESUME=)([\"']?)((?:/dev/|PARTUUID=)[^\s\"'#]+)(\2.*)")
_WORD = re.compile(r"(\bresume=)((?:/dev/|PARTUUID=)[^\s\"'#]+)")
_USWSUSP = re.compile(r"(\s*resume device\s*[=:]\s*)(/dev/\S+)(\s*)")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Every file that names a resume device of the guest's."""
    paths = [*_FILES]
    for folder, ending in _FOLDERS:
        paths += [f"{folder}/{name}" for name in guest.names(folder) if name.endswith(ending)]
    changed = []
    for path in paths:
        before = guest.read(path)
        after = before if before is None else rewritten(before, lambda line: _line(line, facts))
        if after is not None and after != before:
            changed.append(Edit(path, after, REASON))
    return tuple(changed)


def _line(line: str, facts: Facts) -> str:
    if line.lstrip().startswith("#"):
        return line
    shell = _SHELL.fullmatch(line)
    if shell:
        return shell[1] + shell[2] + _lasting(shell[3], facts) + _words(shell[4], facts)
    uswsusp = _USWSUSP.fullmatch(line)
    if uswsusp:
        # It opens the path itself and knows no UUID=.
        by_uuid = _lasting(uswsusp[2], facts).replace("UUID=", "/dev/disk/by-uuid/")
        return uswsusp[1] + by_uuid.replace("LABEL=", "/dev/disk/by-label/") + uswsusp[3]
    return _words(line, facts)


def _words(text: str, facts: Facts) -> str:
    return _WORD.sub(lambda match: match[1] + _lasting(match[2], facts), text)


def _lasting(device: str, facts: Facts) -> str:
    volume = facts.volume(device) or facts.meant(device, "swap")
    return facts.lasting_name(volume) if volume else device
