"""/etc/default/grub and grub.d: the command line that update-grub writes into grub.cfg.

Source for the variables: GRUB manual, "Simple configuration handling". The file is shell; assignments on one
line are changed, anything cleverer stays and gets an assignment after it.
"""

import re

from orchestrate.guest.boot.kernel_arguments import with_serial_console, with_words, without_xen
from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies, rewritten, with_added
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups.nic_names import kernel_arguments

NAME = "default-grub"
REASON = "GRUB's defaults put the console on the serial port, because hvc0 is Xen's and KVM has none"

PATH = "/etc/default/grub"
_FOLDER = "/etc/default/grub.d"
_ASSIGNMENT = re.compile(
    r"(?P<before>\s*(?:export\s+)?(?P<name>GRUB_CMDLINE_LINUX(?:_[A-Z_]+)?)\+?=)"
    r"(?P<quote>[\"']?)(?P<value>[^\"'\\`]*)(?P=quote)(?P<after>\s*(?:[;#].*)?)"
)
_MENTIONS = re.compile(r"\s*(?:export\s+)?GRUB_CMDLINE_LINUX\+?=")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Xen's words go from every command line; the serial console comes into GRUB_CMDLINE_LINUX."""
    before = guest.read(PATH)
    changed = []
    if before is not None:
        cleaned = rewritten(before, lambda line: _cleaned(line, facts))
        after = _with_console(cleaned, facts, kernel_arguments(guest, facts))
        if after != before:
            changed.append(Edit(PATH, after, REASON))
    for name in guest.names(_FOLDER):
        path = f"{_FOLDER}/{name}"
        before = guest.read(path) if name.endswith(".cfg") else None
        if before is not None:
            after = rewritten(before, lambda line: _cleaned(line, facts))
            if after != before:
                changed.append(Edit(path, after, REASON))
    return tuple(changed)


def arguments(guest: Reading) -> str:
    """The command line that update-grub would give the default entry; "" where none is written plainly."""
    found: dict[str, str] = {}
    for match in filter(None, map(_assignment, bodies(guest.read(PATH) or b""))):
        found[match["name"]] = match["value"]
    return " ".join(
        found[name] for name in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT") if found.get(name)
    )


def _cleaned(line: str, facts: Facts) -> str:
    match = _assignment(line)
    return _assigned(match, without_xen(match["value"], facts)) if match else line


def _with_console(content: bytes, facts: Facts, words: tuple[str, ...]) -> bytes:
    """The last assignment is the one that counts."""

    def complete(arguments: str) -> str:
        return with_words(with_serial_console(arguments, facts), words)

    lines = bodies(content)
    last = max((number for number, line in enumerate(lines) if _MENTIONS.match(line)), default=None)
    alone = complete("")
    if last is None:
        return with_added(content, [f'GRUB_CMDLINE_LINUX="{alone}"'])
    match = _assignment(lines[last])
    if match is None:
        return with_added(content, [f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {alone}"'])
    numbers = iter(range(len(lines)))
    new = _assigned(match, complete(match["value"]))
    return rewritten(content, lambda line: new if next(numbers) == last else line)


def _assignment(line: str) -> re.Match[str] | None:
    match = _ASSIGNMENT.fullmatch(line)
    # Without quotes the value ends at the first blank, and what follows is a command.
    if match is None or (not match["quote"] and re.search(r"[\s;#&|]", match["value"])):
        return None
    return match


def _assigned(match: re.Match[str], value: str) -> str:
    if value == match["value"]:
        return match[0]
    quote = match["quote"] or '"'
    return f"{match['before']}{quote}{value}{quote}{match['after']}"
