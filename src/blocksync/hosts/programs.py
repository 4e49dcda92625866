"""Programs of this host: found where root's programs are, whatever PATH says.

Cron, `su` without `-` and many set-ups of sudo leave out the folders in which half of them lie.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blocksync.errors import Failed
from blocksync.voice import THIS_MACHINE, voice

if TYPE_CHECKING:
    import subprocess

BESIDES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Folders that are looked in after those of PATH."""

_PACKAGES = {
    "arping": "arping",
    "blkid": "util-linux",
    "blockdev": "util-linux",
    "debugfs": "e2fsprogs",
    "dmsetup": "dmsetup",
    "dumpe2fs": "e2fsprogs",
    "grub-fstest": "grub-common",
    "grub-mkimage": "grub-common",
    "ip": "iproute2",
    "losetup": "mount",
    "lvs": "lvm2",
    "mkswap": "util-linux",
    "mount": "mount",
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-utils or qemu-system-common",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "umount": "mount",
    "virsh": "libvirt-clients",
}


def search_path() -> str:
    """PATH, and the folders besides."""
    return os.pathsep.join((os.environ.get("PATH") or os.defpath, *BESIDES))


def environment(**more: str) -> dict[str, str]:
    """This process's environment for a program, which then finds others likewise."""
    return {**os.environ, "PATH": search_path(), **more}


def look_up(name: str) -> str | None:
    """The path of a program, or None. A name with a slash in it is one already."""
    # Imported late, as below: it takes longer than all of this module.
    import shutil  # noqa: PLC0415

    return shutil.which(name, path=search_path())


def find(name: str) -> str:
    """The path of a program. Raises Failed, with the package that has it."""
    found = look_up(name)
    if found is None:
        raise Failed(
            name,
            f"is neither in a folder of PATH nor in {', '.join(BESIDES)}",
            f"apt-get install {package(name)}, or have PATH lead to it",
        )
    return found


def package(name: str) -> str:
    """The package of Debian that has a program."""
    return _PACKAGES.get(name, name)


def run(argv: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
    """As `subprocess.run`; told of with its status and its seconds."""
    # Imported late: a pass of a volume whose digests are believed runs no program.
    import subprocess  # noqa: PLC0415

    with voice.running(THIS_MACHINE, argv) as ended:
        try:
            done = subprocess.run(argv, **options)  # noqa: PLW1510 - as its caller says
        except subprocess.CalledProcessError as error:
            ended(error.returncode)
            raise
        ended(done.returncode)
    return done
