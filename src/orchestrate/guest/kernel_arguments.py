"""The kernel's command line as it must be under KVM; used by every file that holds one.

Source for the words: the kernel's admin-guide/kernel-parameters.
"""

import re
from collections.abc import Iterable

from orchestrate.guest.facts import Facts
from orchestrate.guest.fstab import volume_named

_BLANKS = re.compile(r"(\s+)")
_ONLY_XEN = re.compile(r"console=(?:hvc|xvc)[0-9].*|xencons=.*|earlyprintk=xen.*|elevator=noop")
_DEVICE = re.compile(r"(root|resume)=((?:/dev/|PARTUUID=).*)")
_USE = {"root": "root", "resume": "swap"}
_SPEED = "115200n8"


def without_xen(arguments: str, facts: Facts) -> str:
    """`arguments` without Xen's consoles and the scheduler that suited them, with volumes by UUID.

    Other words stay as they are, in their order; so do the blanks between them.
    """
    pieces = _BLANKS.split(arguments)
    kept: list[str] = []
    for piece in pieces:
        if _ONLY_XEN.fullmatch(piece):
            if kept and kept[-1].isspace():
                kept.pop()
            continue
        # A word that went from the start leaves its blank behind.
        if piece.isspace() and not kept:
            continue
        kept.append(_device(piece, facts))
    return "".join(kept)


def with_serial_console(arguments: str, facts: Facts) -> str:
    """`arguments` with the serial console as the last, which makes it /dev/console; the screen before it."""
    words = arguments.split()
    serial = f"console={facts.serial_console}"
    if any(word == serial or word.startswith(f"{serial},") for word in words):
        return arguments
    screen = () if any(word.startswith("console=tty0") for word in words) else ("console=tty0",)
    return _joined(arguments, (*screen, f"{serial},{_SPEED}"))


def with_words(arguments: str, words: Iterable[str]) -> str:
    """`arguments` with those of `words` that it lacks at its end."""
    present = arguments.split()
    return _joined(arguments, [word for word in words if word not in present])


def for_kvm(arguments: str, facts: Facts, words: Iterable[str] = ()) -> str:
    """A whole command line for the KVM guest; `words` are those of `nic_names.kernel_arguments`."""
    return with_words(with_serial_console(without_xen(arguments, facts), facts), words)


def _joined(arguments: str, words: Iterable[str]) -> str:
    added = " ".join(words)
    if not added:
        return arguments
    return f"{arguments.rstrip()} {added}" if arguments.strip() else added


def _device(word: str, facts: Facts) -> str:
    match = _DEVICE.fullmatch(word)
    if match is None:
        return word
    volume = volume_named(match[2], facts) or facts.meant(match[2], _USE[match[1]])
    return f"{match[1]}={facts.lasting_name(volume)}" if volume else word
