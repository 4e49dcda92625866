"""The files that this program writes for itself: plans, digest files, states, reports.

A path from a command line may be a slip: a device, a pipe, another guest's image, a link to any of them. So
nothing is opened before it is known to be a regular file, no link is followed in the last place, and a file
is replaced only by renaming a new one, made under a name that nobody can guess, over a regular file.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blocksync.errors import Failed, Refused, Usage, telling, why

OWN_MODE = 0o600
MOST_BYTES = 64 * 2**20
"""Of a file that is read as a whole: none of ours comes near it, and a path may be a slip."""
_MOST_LINKS = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def require_regular(path: Path, what: str) -> os.stat_result | None:
    """The status of a regular file, None where nothing is. `what` names the file's purpose: "a plan".

    Raises Usage for anything else, a link included, and where the folder is missing. Opens nothing.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise Usage(path, "is in a folder that does not exist", "make the folder first") from None
        return None
    except (OSError, ValueError) as error:
        raise Usage(path, f"cannot be looked at: {why(error)}", f"name another file for {what}") from error
    if not stat.S_ISREG(status.st_mode):
        raise _is_not_regular(path, status.st_mode, what)
    return status


def _is_not_regular(path: Path, mode: int, what: str) -> Usage:
    kind = next((name for test, name in _KINDS if test(mode)), "not a regular file")
    return Usage(path, f"is {kind}: {what} is kept in a regular file", "name a new file, or a file of ours")


@contextmanager
def opened(path: Path, flags: int, what: str, *, follow: bool = False) -> Iterator[int]:
    """A descriptor of a regular file, `flags` as of os.open; one that it makes is its owner's alone. No link
    is followed in the last place, unless `follow`, and nothing waits for whoever should write into a pipe.

    Raises Usage unless it is a regular file, and OSError.
    """
    try:
        fd = os.open(path, flags | (0 if follow else os.O_NOFOLLOW) | os.O_NONBLOCK | os.O_CLOEXEC, OWN_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _is_not_regular(path, stat.S_IFLNK, what) from error
        raise
    try:
        if not stat.S_ISREG(kind := os.fstat(fd).st_mode):
            raise _is_not_regular(path, kind, what)
        yield fd
    finally:
        os.close(fd)


def read(path: Path, what: str, most: int = MOST_BYTES) -> bytes | None:
    """The content of a file of ours, at most so many bytes of it; None where there is none. Raises Usage for
    what is not a regular file, Failed for what cannot be read.
    """
    try:
        with opened(path, os.O_RDONLY, what) as fd, open(fd, "rb", closefd=False) as file:
            return file.read(most)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failed(path, f"cannot be read: {why(error)}", "see what stands there in its place") from error


@contextmanager
def fresh(path: Path) -> Iterator[tuple[int, str, int]]:
    """A new file beside `path`: its descriptor, its name and the descriptor of its folder. Whatever of it was
    not renamed when the block ends is gone. Raises OSError.
    """
    folder = os.open(path.parent, _FOLDER)
    try:
        name = f".{path.name[:200]}.{os.urandom(8).hex()}.new"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, OWN_MODE, dir_fd=folder)
        try:
            yield fd, name, folder
        finally:
            os.close(fd)
            # What could not be removed harms nobody, and must not hide what went wrong before.
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def replace(path: Path, content: bytes, what: str, mode: int = OWN_MODE) -> None:
    """Write a whole file, durably: it is there as a whole or not at all. What it replaces is a regular file;
    whether that one may go is the caller's to know. Raises Usage, and Failed.
    """
    require_regular(path, what)
    with telling(path, "cannot be written", "make room, or name another file"), fresh(path) as made:
        fd, name, folder = made
        write_fully(fd, content)
        os.fchmod(fd, mode)
        os.fsync(fd)
        os.rename(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def write_fully(fd: int, content: bytes | bytearray | memoryview, offset: int = 0) -> None:
    """Write all of it at an offset. Raises OSError."""
    rest = memoryview(content)
    while rest:
        count = os.pwrite(fd, rest, offset)
        offset += count
        rest = rest[count:]


def require_safe_way(path: Path, what: str) -> None:
    """Raises Refused (guard `folder`) where another user than root and this one could put something else in
    the place of a file or folder, which need not be there yet, or of what is in it: it, or a link or folder
    on the way to it, or the folder of such a link, is theirs, or anybody may write to it. A sticky folder
    such as /tmp is safe for what is ours: there nobody renames what is somebody else's.
    """
    for each, status, folder in _way(path):
        if (unsafe := _unsafe(status) or _of_another_in_sticky(status, folder)) is not None:
            raise Refused(
                each,
                f"{unsafe}: {what} must not be where somebody else can exchange it",
                "use a folder of root's, such as /var/lib/xen2kvm",
                guard="folder",
            )


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result, os.stat_result]]:
    """What the kernel passes on its way to `path`, and what is there: each with its own status, no link
    followed, and its folder's.
    """
    here, rest = Path("/"), list(reversed(path.absolute().parts[1:]))
    folder = here.lstat()
    links = 0
    while rest and links < _MOST_LINKS:
        there = here / rest.pop()
        try:
            status = there.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        yield there, status, folder
        if stat.S_ISLNK(status.st_mode):
            links += 1
            parts = there.readlink().parts
            is_absolute = parts[:1] == ("/",)
            here = Path("/") if is_absolute else here
            rest.extend(reversed(parts[is_absolute:]))
        else:
            here = Path(os.path.normpath(there))
        folder = here.lstat()


def _unsafe(status: os.stat_result) -> str | None:
    """Why a folder's content may be exchanged by another user; None when it may not."""
    if not stat.S_ISDIR(status.st_mode):
        return None
    if not _is_ours(status):
        return f"belongs to the user {status.st_uid}"
    sticky = bool(status.st_mode & stat.S_ISVTX)
    if status.st_mode & stat.S_IWOTH and not sticky:
        return "can be written to by every user"
    shared = status.st_gid not in (0, os.getegid())
    if status.st_mode & stat.S_IWGRP and shared and not sticky:
        return f"can be written to by the group {status.st_gid}"
    return None


def _of_another_in_sticky(status: os.stat_result, folder: os.stat_result) -> str | None:
    """Why another user may exchange what is in a sticky folder: it is his. None when it is not."""
    if folder.st_mode & stat.S_ISVTX and not _is_ours(status):
        return f"belongs to the user {status.st_uid}, in a folder of everybody"
    return None


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())
