"""What a device is called for good: an identity that survives reboots and renumbering, for digest files."""

import os
import stat
from pathlib import Path

SYSFS = Path("/sys")


def of_file(path: Path, status: os.stat_result) -> str:
    """Identity of a regular file: its resolved path and inode; a copy or a new file in its place is another
    file.
    """
    return f"file {path.resolve()} inode {status.st_ino}"


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file or block device, by links, other nodes and other spellings; by
    where they lead where one of them is not there.
    """
    try:
        first, second = one.stat(), other.stat()
    except ValueError:
        return one.absolute() == other.absolute()
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
    if stat.S_ISBLK(first.st_mode) or stat.S_ISBLK(second.st_mode):
        return first.st_rdev == second.st_rdev and stat.S_IFMT(first.st_mode) == stat.S_IFMT(second.st_mode)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def of_block(path: Path, status: os.stat_result, sysfs: Path = SYSFS) -> str:
    """Identity of a block device: what backs it where the kernel tells (loop, partition, dm uuid, wwid,
    serial), else its name. Numbers such as loop3 or dm-0 change from boot to boot and are no identity.
    """
    node = sysfs / "dev/block" / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return _of_node(node) or f"device {path.resolve()}"


def _of_node(node: Path) -> str | None:
    if backing := _text(node / "loop/backing_file"):
        return _of_loop(node, Path(backing))
    if number := _text(node / "partition"):
        parent = _of_node(node.resolve().parent)
        return f"{parent} partition {number} at sector {_text(node / 'start')}" if parent else None
    for name in ("dm/uuid", "md/uuid", "wwid", "device/wwid", "serial", "device/serial"):
        if value := _text(node / name):
            return f"{name} {value}"
    return None


def _of_loop(node: Path, backing: Path) -> str:
    try:
        file = of_file(backing, backing.stat())
    except OSError:
        file = f"file {backing}"
    return f"loop {file} at {_text(node / 'loop/offset')}"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
