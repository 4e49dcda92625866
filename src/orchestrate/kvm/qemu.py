"""QEMU's programs on this host."""

import shutil

from blocksync.errors import Failed

_PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-utils or qemu-system-common",
}
# Where the Red Hat family keeps the emulator, off PATH.
_EMULATORS = ("qemu-system-x86_64", "/usr/libexec/qemu-kvm")


def emulator() -> str:
    """Path of the x86 system emulator (it also runs 32-bit guests); Failed when there is none."""
    for name in _EMULATORS:
        found = shutil.which(name)
        if found:
            return found
    raise Failed(_EMULATORS[0], "not found on PATH", "apt-get install qemu-system-x86")


def program(name: str) -> str:
    """Path of one of QEMU's tools (`qemu-img`, `qemu-storage-daemon`); Failed when it is missing."""
    found = shutil.which(name)
    if found is None:
        raise Failed(name, "not found on PATH", f"apt-get install {_PACKAGES.get(name, name)}")
    return found
