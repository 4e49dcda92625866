"""The kernel's command line as it must be under KVM; used by every file that holds one.

Source for the words: the kernel's admin-guide/kernel-parameters.
"""

import re
from collections.abc import Iterable

from orchestrate.guest.facts import Facts
from orchestrate.guest.fixups.fstab import volume_named

_BLANKS = re.compile(r"(\s+)")
_CONSOLE = "it is about Xen's console; under KVM the serial port is the console"
_CLOCK = "it is about Xen's clock; under KVM the kernel takes kvm-clock"
_ONLY_XEN = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"console=(?:hvc|xvc)[0-9].*|xencons=.*|earlyprintk=xen.*", _CONSOLE),
        (r"elevator=noop", "it suited Xen's disks; under KVM the kernel chooses for itself"),
        (r"clocksource=xen|(?:xen[_.-])?independent_wallclock(?:=.*)?", _CLOCK),
        (r"swiotlb=.*|iommu=soft", "it served devices that Xen passed through"),
        (r"xen[_.-].*|(?:xennet|xenblk|netfront|blkfront|netloop)\..*", "it sets up drivers of Xen's"),
    )
)
_DEVICE = re.compile(r"(root|resume)=((?:/dev/|PARTUUID=).*)")
_USE = {"root": "root", "resume": "swap"}
_SPEED = "115200n8"


def without_xen(arguments: str, facts: Facts) -> str:
    """`arguments` without the words that are about Xen alone, with volumes by UUID.

    Other words stay as they are, in their order; so do the blanks between them.
    """
    pieces = _BLANKS.split(arguments)
    kept: list[str] = []
    for piece in pieces:
        if _why_xens(piece):
            if kept and kept[-1].isspace():
                kept.pop()
            continue
        # A word that went from the start leaves its blank behind.
        if piece.isspace() and not kept:
            continue
        kept.append(_device(piece, facts))
    return "".join(kept)


def xens(arguments: str) -> tuple[tuple[str, str], ...]:
    """The words of `arguments` that `without_xen` takes out, each with its reason."""
    return tuple((word, reason) for word in arguments.split() if (reason := _why_xens(word)))


def _why_xens(word: str) -> str | None:
    return next((reason for pattern, reason in _ONLY_XEN if pattern.fullmatch(word)), None)


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
