"""QEMU's locks on images, by which its programs keep out of each other's way, and we of theirs.

They lie on the file itself: whatever its name, and in whatever namespace or container the other one runs. A
QEMU that writes to an image has a shared lock on byte 101, one that lets nobody else write has one on byte
201 (`raw_apply_lock_bytes` in QEMU's block/file-posix.c).
"""

import fcntl
import os
import struct

WRITER = 101
NO_OTHER_WRITER = 201

_LOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid


def hold(fd: int, *places: int) -> None:
    """Take shared locks, until the descriptor is closed. Where a file system has no locks, none are taken."""
    for place in places:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, place))
        except OSError:
            return


def is_held(fd: int, place: int) -> bool:
    """Whether anybody but this descriptor has a lock there."""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, place))
    except OSError:
        return False
    return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _lock(kind: int, offset: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, offset, 1, 0)
