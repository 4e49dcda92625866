"""GRUB's boot code for a BIOS, made by this host's grub-mkimage from this host's modules.

The guest's own copy is not used: it would have to be run here, and what a guest holds is not trusted.
"""

import io
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import Failed, Refused
from blocksync.foreign import shown_bytes
from blocksync.hosts import programs

PLATFORM = Path("/usr/lib/grub/i386-pc")
_FILESYSTEM_MODULES = {
    "ext2": "ext2",
    "ext3": "ext2",
    "ext4": "ext2",
    "xfs": "xfs",
    "btrfs": "btrfs",
}
# Enough to reach grub.cfg and to load a kernel even if a module file could not be read.
_ALWAYS = (
    "biosdisk",
    "part_msdos",
    "part_gpt",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "serial",
    "terminal",
    "echo",
    "test",
    "gzio",
)


@dataclass(frozen=True, slots=True)
class GrubImage:
    """`boot`: boot.img, 512 bytes for sector 0; `core`: core.img, whole sectors."""

    boot: bytes
    core: bytes


def make(early_config: str, filesystem: str) -> GrubImage:
    """Boot code that reads `filesystem` (blkid's name of it) and runs `early_config` first.

    Raises `Refused` where GRUB cannot read the file system, `Failed` where this host lacks GRUB's files.
    """
    module = _FILESYSTEM_MODULES.get(filesystem)
    if module is None:
        known = ", ".join(_FILESYSTEM_MODULES)
        raise Refused(f"/boot on {filesystem}", f"GRUB is set up here for {known}", guard="boot-filesystem")
    with _in_memory("early.cfg") as early, _in_memory("core.img") as core:
        early.write(early_config.encode())
        argv = [programs.find("grub-mkimage"), "-O", "i386-pc", "-d", str(PLATFORM), "-p", "/boot/grub"]
        argv += ["-c", _path(early), "-o", _path(core), *_ALWAYS, module]
        try:
            passed = early.fileno(), core.fileno()
            programs.run(argv, check=True, capture_output=True, pass_fds=passed)
            return GrubImage((PLATFORM / "boot.img").read_bytes(), core.read())
        except subprocess.CalledProcessError as error:
            raise Failed("grub-mkimage", shown_bytes(error.stderr), _INSTALL) from error
        except OSError as error:
            raise Failed(error.filename, error.strerror or "cannot be read", _INSTALL) from error


def _in_memory(name: str) -> io.FileIO:
    """A file that goes with this process, whatever ends it."""
    return io.FileIO(os.memfd_create(name, os.MFD_CLOEXEC), "r+b")


def _path(file: io.FileIO) -> str:
    return f"/proc/self/fd/{file.fileno()}"


def modules() -> dict[str, bytes]:
    """GRUB's modules and their lists by file name; without the lists GRUB knows no command `linux`."""
    files = sorted(path for path in PLATFORM.glob("*") if path.suffix in {".mod", ".lst"})
    if not files:
        raise Failed(PLATFORM, "holds no GRUB modules", _INSTALL)
    return {path.name: path.read_bytes() for path in files}


_INSTALL = "apt-get install grub-pc-bin grub-common"
