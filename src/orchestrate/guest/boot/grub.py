"""GRUB's files inside the guest: grub.cfg for the guest's own kernels, and GRUB's modules.

The guest's own update-grub and grub-install may replace all of it later; until they run, this boots.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blocksync.errors import Failed
from blocksync.foreign import shown
from orchestrate.guest.boot.kernels import Kernel
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.reading import Reading

GRUB = "/boot/grub"
MODULES = f"{GRUB}/i386-pc"
REASON = "a KVM guest boots by itself: the BIOS starts GRUB from the disk, GRUB starts the guest's own kernel"
SERIAL_SPEED = 115200
# What GRUB's scripts take as it is, at every place of a word.
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/=+@%-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Booting:
    """What grub.cfg needs to know: where /boot and the root file system are, and the kernel's arguments.

    `boot_prefix` is what /boot is called inside its own file system: "" when /boot is a volume of its own,
    "/boot" when it is a folder of the root file system.
    """

    root_uuid: str
    boot_uuid: str
    boot_prefix: str
    arguments: tuple[str, ...]
    title: str = "GNU/Linux"


def early_config(booting: Booting) -> str:
    """The script inside core.img: find the file system with /boot by its UUID, wherever it lies."""
    prefix = quoted(f"{booting.boot_prefix}/grub")
    return f"search.fs_uuid {quoted(booting.boot_uuid)} root\nset prefix=($root){prefix}\n"


def quoted(word: str) -> str:
    """`word` as GRUB's scripts read it back as this word and nothing more: a variable, a command, a bracket.

    Raises `Failed` for what no quotes hold, the end of a line among it.
    """
    if not word.isprintable():
        raise Failed(shown(word), "cannot be written into grub.cfg", "give it a plain name in the guest")
    if _PLAIN.fullmatch(word):
        return word
    # Between single quotes everything stands for itself, but a single quote.
    return "'" + word.replace("'", "'\\''") + "'"


def edits(
    guest: Reading, booting: Booting, kernels: Sequence[Kernel], modules: Mapping[str, bytes]
) -> tuple[Edit, ...]:
    """grub.cfg and the modules (file name to content) that differ from what the guest has."""
    wanted = {f"{GRUB}/grub.cfg": config(booting, kernels).encode()}
    wanted |= {f"{MODULES}/{name}": content for name, content in modules.items()}
    return tuple(
        Edit(path, content, REASON) for path, content in wanted.items() if guest.read(path) != content
    )


def config(booting: Booting, kernels: Sequence[Kernel]) -> str:
    """grub.cfg with one entry a kernel, the first one the default, on the screen and the serial line."""
    head = f"""\
# Written by xen2kvm when this guest moved to KVM. update-grub replaces it.
serial --unit=0 --speed={SERIAL_SPEED}
terminal_input console serial
terminal_output console serial
set default=0
set timeout=2
search --no-floppy --fs-uuid --set=root {quoted(booting.boot_uuid)}
"""
    return head + "".join(_entry(booting, kernel) for kernel in kernels)


def _entry(booting: Booting, kernel: Kernel) -> str:
    title = quoted(f"{booting.title}, with Linux {kernel.version}")
    words = (f"root=UUID={booting.root_uuid}", "ro", *booting.arguments)
    arguments = " ".join(quoted(word) for word in words)
    lines = [f"linux {_inside(booting, kernel.image)} {arguments}"]
    if kernel.initrd:
        lines.append(f"initrd {_inside(booting, kernel.initrd)}")
    return f"menuentry {title} {{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def _inside(booting: Booting, path: str) -> str:
    return quoted(booting.boot_prefix + path.removeprefix("/boot"))
