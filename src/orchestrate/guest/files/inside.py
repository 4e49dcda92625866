"""Opening paths inside a mounted guest so that none of its links leads out of it.

openat2(2) with RESOLVE_IN_ROOT resolves absolute links and `..` as if the guest's root were the root, and
RESOLVE_NO_MAGICLINKS refuses the links of /proc. A plain open of `etc/fstab -> /etc/passwd` would open the
host's file. Python has no wrapper for openat2, so it is called by its number.
"""

import ctypes
import errno
import os
import stat
from pathlib import Path

_SYS_OPENAT2 = 437  # the same on every architecture but alpha
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_MOST_LINKS = 40  # as the kernel

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_inside(root: int, path: str, flags: int) -> int:
    """Descriptor of `path`, resolved with the folder `root` (a descriptor) as its root. Raises OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    encoded = os.fsencode(path)
    while True:
        descriptor = int(
            _libc.syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(root),
                ctypes.c_char_p(encoded),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        # EAGAIN: something was renamed meanwhile and the kernel could not vouch for a `..`.
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)


def is_absent(error: OSError) -> bool:
    """Whether `error` says that there is nothing at the path."""
    return error.errno in _ABSENT


def open_regular(root: int, path: str) -> int | None:
    """Read-only descriptor of the regular file at `path`; None when there is none.

    What the path leads to is looked at before it is opened: opening a FIFO waits, opening a device acts.
    """
    try:
        found = open_inside(root, path, os.O_PATH)
    except OSError as error:
        if is_absent(error):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)


def open_folder(root: int, path: str) -> int:
    """Readable descriptor of the folder at `path`. Raises OSError."""
    return open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY)


def real_path(root: int, path: str) -> str:
    """`path` with every link followed but one in its last place: one spelling for each place in the guest.

    As it is when its folder does not exist. Raises OSError.
    """
    parent, name = os.path.split(path)
    try:
        folder = open_inside(root, parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if is_absent(error):
            return path
        raise
    try:
        return os.path.join(_place(folder).removeprefix(_place(root)) or "/", name)  # noqa: PTH118
    finally:
        os.close(folder)


def final_path(root: int, path: str) -> str:
    """`real_path` with a link in its last place followed too, as often as there is one, inside the guest.

    The result may not exist; its folder may not either. Raises OSError (ELOOP) for a circle of links.
    """
    for _ in range(_MOST_LINKS):
        path = real_path(root, path)
        target = _link(root, path)
        if target is None:
            return path
        # An absolute target replaces the path.
        path = os.path.join(os.path.dirname(path), target).rstrip("/")  # noqa: PTH118, PTH120
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _link(root: int, path: str) -> str | None:
    """What the link at `path` says; None when there is no link."""
    parent, name = os.path.split(path)
    try:
        folder = open_folder(root, parent)
    except OSError as error:
        if is_absent(error):
            return None
        raise
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
    finally:
        os.close(folder)


def _place(descriptor: int) -> str:
    """Where the kernel says an open folder is, on this host."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())
