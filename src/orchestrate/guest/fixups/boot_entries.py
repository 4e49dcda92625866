"""Command lines that other boot files hold: kernel-install's, Boot Loader Specification entries, extlinux.

Sources: kernel-install(8), the Boot Loader Specification (type 1), syslinux's documentation of APPEND.
"""

import re

from orchestrate.guest.boot.kernel_arguments import for_kvm
from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import rewritten
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups.nic_names import kernel_arguments

NAME = "boot-entries"
REASON = "every boot entry's command line puts the console on the serial port, because hvc0 is Xen's"

_WHOLE_LINE = re.compile(r"()(\s*[^#\s].*)")
_OPTIONS = re.compile(r"(\s*options\s+)(.*)")
_APPEND = re.compile(r"(\s*append\s+)(.*)", re.IGNORECASE)
_ENTRIES = "/boot/loader/entries"
_FILES = (
    ("/etc/kernel/cmdline", _WHOLE_LINE),
    ("/boot/extlinux/extlinux.conf", _APPEND),
    ("/boot/syslinux/syslinux.cfg", _APPEND),
)


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Each file that the guest has and that names a command line."""
    entries = ((f"{_ENTRIES}/{name}", _OPTIONS) for name in guest.names(_ENTRIES) if name.endswith(".conf"))
    words = kernel_arguments(guest, facts)
    changed = []
    for path, pattern in (*_FILES, *entries):
        before = guest.read(path)
        after = before if before is None else _rewritten(before, pattern, facts, words)
        if after is not None and after != before:
            changed.append(Edit(path, after, REASON))
    return tuple(changed)


def _rewritten(content: bytes, pattern: re.Pattern[str], facts: Facts, words: tuple[str, ...]) -> bytes:
    def line(body: str) -> str:
        match = pattern.fullmatch(body)
        return match[1] + for_kvm(match[2], facts, words) if match else body

    return rewritten(content, line)
