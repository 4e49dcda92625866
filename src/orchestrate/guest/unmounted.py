"""A guest's files read from its volumes without mounting them.

GRUB's own file system code reads them (`grub-fstest`): in user space, never writing, replaying no journal;
what it cannot find, GRUB could not boot either. A Xen host that lacks it has `debugfs`, which knows ext2 to
ext4. A guest that runs may be in the middle of a change: this is for planning, not for copying. What the host
had cached of a volume is forgotten when it is probed (`orchestrate.volumes`): probe it first.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from blocksync.errors import Failed
from orchestrate.guest.limits import limited
from orchestrate.guest.reading import LARGEST_FILE
from orchestrate.hosts import MISSING, Done, Host

_LINKS = 8
_LINK, _FILE = "120000", "100000"
# What the two programs say of a file system that they cannot open, and GRUB's of a file that is not there.
_UNKNOWN, _NOT_OPEN = "unknown filesystem", "Filesystem not open"
_NOT_FOUND = "not found"
# A guest that runs may be in the middle of a change.
_TRIES = 3
_LINK_TARGET = re.compile(rb'Fast link dest: "(.*)"')
# debugfs splits its request at blanks and quotes; a name that needs more than these is no configuration's.
_SPEAKABLE = re.compile(r"/[\w./@:+=~%,-]*")


class Reader(Protocol):
    """One volume's files, by their path inside its file system."""

    def names(self, volume: Path, folder: str) -> tuple[str, ...]:
        """The names in a folder; empty when there is none."""

    def content(self, volume: Path, path: str) -> bytes | None:
        """A file's content; None when it is no regular file."""


class Unmounted:
    """Volumes by mount point ("/" among them) as one `Reading`."""

    def __init__(self, host: Host, volumes: Mapping[str, Path]) -> None:
        self._reader = reader(host)
        self._volumes = dict(volumes)
        # Fix-ups ask for the same files again and again, and each answer is a command on a far host.
        self._listed: dict[str, tuple[str, ...]] = {}
        self._contents: dict[str, bytes | None] = {}

    def read(self, path: str) -> bytes | None:
        """As `Reading.read`."""
        if path not in self._contents:
            content = self.image(path)
            if content is not None and len(content) > LARGEST_FILE:
                raise Failed(path, "is larger than any configuration file", "look at it inside the guest")
            self._contents[path] = content
        return self._contents[path]

    def image(self, path: str) -> bytes | None:
        """As `read`, of a kernel or an initramfs, which may have any size that the host hands over."""
        path = posixpath.normpath(path)
        folder, name = posixpath.split(path)
        if name not in self.names(folder):
            return None
        return self._reader.content(*self._inside(path))

    def names(self, directory: str) -> tuple[str, ...]:
        """As `Reading.names`."""
        directory = posixpath.normpath(directory)
        if directory not in self._listed:
            found = self._reader.names(*self._inside(directory))
            self._listed[directory] = tuple(sorted(set(found) - {".", ".."}))
        return self._listed[directory]

    def _inside(self, path: str) -> tuple[Path, str]:
        """The volume that a path lies on, and the path inside it."""
        mountpoint = max((point for point in self._volumes if _below(path, point)), key=len)
        return self._volumes[mountpoint], "/" + path.removeprefix(mountpoint).lstrip("/")


def _below(path: str, mountpoint: str) -> bool:
    return f"{path}/".startswith(mountpoint.rstrip("/") + "/")


def reader(host: Host) -> Reader:
    """The reader that `host` has the program for."""
    host = limited(host)
    if host.run(["grub-fstest", "--version"]).status != MISSING:
        return GrubFstest(host)
    if host.run(["debugfs", "-V"]).status != MISSING:
        return Debugfs(host)
    raise Failed(
        f"{host.describe()}: grub-fstest, debugfs",
        "neither is there to look into a volume with",
        "apt-get install grub-common",
    )


class GrubFstest:
    """GRUB's file system code: ext2 to ext4, xfs, btrfs and more."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def names(self, volume: Path, folder: str) -> tuple[str, ...]:
        """As `Reader.names`."""
        for _ in range(_TRIES):
            listing = self._ask(volume, "ls", folder.rstrip("/") + "/").output
            if listing or self._is_absent(volume, folder):
                break
        return tuple(name.rstrip("/") for name in listing.decode(errors="surrogateescape").split())

    def content(self, volume: Path, path: str) -> bytes | None:
        """As `Reader.content`."""
        done = self._ask(volume, "cat", path)
        return done.output if done.status == 0 else None

    def _is_absent(self, volume: Path, folder: str) -> bool:
        """Whether there is no such folder: of one that could not be read, too, nothing is listed."""
        return _NOT_FOUND in self._ask(volume, "cat", folder).complaint

    def _ask(self, volume: Path, command: str, path: str) -> Done:
        return _told(self._host, volume, ["grub-fstest", str(volume), command, path], _UNKNOWN)


class Debugfs:
    """e2fsprogs' debugfs, read-only; links are followed here, because it does not."""

    def __init__(self, host: Host) -> None:
        self._host = host
        # The first components of every path are asked for again and again: a second each on a far host.
        self._answers: dict[tuple[Path, str], bytes] = {}

    def names(self, volume: Path, folder: str) -> tuple[str, ...]:
        """As `Reader.names`."""
        return tuple(self._modes(volume, self._resolved(volume, folder)))

    def content(self, volume: Path, path: str) -> bytes | None:
        """As `Reader.content`."""
        resolved = self._resolved(volume, path)
        folder, name = posixpath.split(resolved)
        if self._modes(volume, folder).get(name, "")[:3] != _FILE[:3]:
            return None
        return self._ask(volume, "cat", resolved)

    def _modes(self, volume: Path, folder: str) -> dict[str, str]:
        """Names and modes (octal) of a folder, from lines of /INODE/MODE/UID/GID/NAME/SIZE/."""
        found = {}
        for line in self._ask(volume, "ls -p", folder).decode(errors="surrogateescape").splitlines():
            fields = line.split("/")
            if len(fields) == 8 and fields[1] != "0":
                found[fields[5]] = fields[2]
        return found

    def _resolved(self, volume: Path, path: str) -> str:
        """`path` without links, as far as they can be followed."""
        done, links = "/", 0
        parts = path.strip("/").split("/") if path != "/" else []
        while parts:
            name = parts.pop(0)
            here = posixpath.join(done, name)
            if self._modes(volume, done).get(name, "")[:3] != _LINK[:3] or links == _LINKS:
                done = here
                continue
            links += 1
            told = _LINK_TARGET.search(self._ask(volume, "stat", here))
            target = posixpath.normpath(posixpath.join(done, told[1].decode() if told else name))
            done, parts = "/", [*target.strip("/").split("/"), *parts]
        return done

    def _ask(self, volume: Path, command: str, path: str) -> bytes:
        if not _SPEAKABLE.fullmatch(path):
            return b""
        asked = volume, f"{command} {path}"
        if asked not in self._answers:
            # -c: while a guest runs, the bitmaps on the disk are rarely those that their checksums are about.
            argv = ["debugfs", "-c", "-R", asked[1], str(volume)]
            self._answers[asked] = _told(self._host, volume, argv, _NOT_OPEN).output
        return self._answers[asked]


def _told(host: Host, volume: Path, argv: Sequence[str], closed: str) -> Done:
    """What a program says of a volume; `closed` is what it says where it cannot open the file system. That is
    an error, and not a file system that holds nothing. Raises Failed.
    """
    for _ in range(_TRIES):
        done = host.run(argv)
        if closed not in done.complaint:
            return done
    # debugfs says the cause first, and what follows from it last.
    words = done.complaint.splitlines()[-2:][0]
    raise Failed(
        volume,
        f"its file system cannot be read: {words}",
        "run the same command again, for a guest that runs may have been in the middle of a change; debugfs "
        "knows ext2 to ext4 alone: for others, install grub-common on that host",
    )
