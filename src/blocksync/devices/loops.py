"""Loop devices: what each is attached to, asked of the device itself.

The path that sysfs tells is one of whoever attached it: it may lead elsewhere in another mount namespace, or
be gone since.
"""

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import telling

DEV = Path("/dev")
# linux/loop.h. struct loop_info64: device, inode and number of what it is attached to, offset, size limit.
_GET_STATUS64 = 0x4C05
_INFO = struct.Struct("=5Q 192x")
_NOBODY_ASKS = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENXIO, errno.ENODEV})
# Detached since, or on a file system whose daemon or host is gone.
_NOBODY_ANSWERS = frozenset({errno.ENXIO, errno.ENOTCONN, errno.ESTALE})


@dataclass(frozen=True, slots=True)
class Backing:
    """What a loop device is attached to: bytes from `offset` on of a block device (major, minor), or of a
    file (st_dev, inode).
    """

    is_block: bool
    number: tuple[int, int]
    offset: int


def backing(node: Path) -> Backing | None:
    """What the device with this sysfs node is attached to; None where it is no loop device, or a free one.
    Raises Failed.
    """
    path = _text(node / "loop/backing_file")
    if path is None:
        return None
    return _asked(DEV / node.resolve().name, _text(node / "dev")) or _by_path(path, node)


def _asked(device: Path, number: str | None) -> Backing | None:
    """None where the device cannot be asked: without rights, where its node is not, or when it was detached
    since. Raises Failed for any other error: who cannot see must not say that nobody is there.
    """
    with telling(device, "cannot be asked what it is attached to"):
        try:
            fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NOBODY_ASKS:
                return None
            raise
        try:
            told = _status(fd, number)
        finally:
            os.close(fd)
    if told is None:
        return None
    file_system, inode, block, offset, _ = _INFO.unpack(told)
    if block:
        return Backing(True, _number(block), offset)
    return Backing(False, (os.makedev(*_number(file_system)), inode), offset)


def _status(fd: int, number: str | None) -> bytes | None:
    rdev = os.fstat(fd).st_rdev
    if f"{os.major(rdev)}:{os.minor(rdev)}" != number:
        return None
    try:
        return fcntl.ioctl(fd, _GET_STATUS64, bytes(_INFO.size))
    except OSError as error:
        if error.errno in _NOBODY_ANSWERS:
            return None
        raise


def _number(encoded: int) -> tuple[int, int]:
    """(major, minor) of how the kernel hands out a device (new_encode_dev in linux/kdev_t.h)."""
    return (encoded >> 8) & 0xFFF, (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00)


def _by_path(path: str, node: Path) -> Backing | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    offset = int(_text(node / "loop/offset") or 0)
    if stat.S_ISBLK(status.st_mode):
        return Backing(True, (os.major(status.st_rdev), os.minor(status.st_rdev)), offset)
    return Backing(False, (status.st_dev, status.st_ino), offset)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().rstrip("\n")
    except OSError:
        return None
