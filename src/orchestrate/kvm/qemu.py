"""QEMU's programs on this host."""

from blocksync.hosts import programs

# Where the Red Hat family keeps the emulator, off PATH.
_EMULATORS = ("qemu-system-x86_64", "/usr/libexec/qemu-kvm")


def emulator() -> str:
    """Path of the x86 system emulator (it also runs 32-bit guests); Failed when there is none."""
    for name in _EMULATORS:
        found = programs.look_up(name)
        if found:
            return found
    return programs.find(_EMULATORS[0])


def program(name: str) -> str:
    """Path of one of QEMU's tools (`qemu-img`, `qemu-storage-daemon`); Failed when it is missing."""
    return programs.find(name)
