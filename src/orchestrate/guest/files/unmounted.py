"""A guest's files read from its volumes without mounting them.

GRUB's own file system code reads them (`grub-fstest`): in user space, never writing, replaying no journal;
what it cannot find, GRUB could not boot either. A Xen host that lacks it has `debugfs`, which knows ext2 to
ext4. A guest that runs may be in the middle of a change: this is for planning, not for copying. What the host
had cached of a volume is forgotten when it is probed (`orchestrate.guest.volumes`): probe it first.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from blocksync.errors import Failed
from blocksync.foreign import shown
from blocksync.hosts.host import MISSING, MOST_BYTES, Completed, Host, TooMuch
from blocksync.sizes import counted
from orchestrate.guest.files.limits import limited
from orchestrate.guest.files.reading import LARGEST_FILE, LARGEST_IMAGE

_LINKS = 8
_LINK, _FILE = "120000", "100000"
# What the two programs say of a file system that they cannot open.
_UNKNOWN, _NOT_OPEN = "unknown filesystem", "Filesystem not open"
# What GRUB says of a path that leads to no regular file; of a folder, only the second. All else that it says
# is that something could not be read.
_GONE = re.compile(r"file `.*' not found|too deep nesting of symlinks")
_NOT_REGULAR = "not a regular file"
# The same for debugfs, and how it says that anything went wrong: by its command, or by the path.
_ABSENT = ("File not found by ext2_lookup", "Ext2 inode is not a directory")
_WENT_WRONG = re.compile(r"(?:^|; )((?:ls|-p|cat|stat|/[^;]*): [^;]+)")
# A guest that runs may be in the middle of a change.
_TRIES = 3
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_LINK_TARGET = re.compile(rb'Fast link dest: "(.*)"')
_AGAIN = (
    "run the same command again, for a guest that runs may have been in the middle of a change; if that does "
    "not help, look at the file inside the guest"
)


class FileReader(Protocol):
    """One volume's files, by their path inside its file system."""

    def names(self, volume: Path, folder: str) -> tuple[str, ...]:
        """The names in a folder; empty when there is none."""

    def content(self, volume: Path, path: str, most: int) -> bytes | None:
        """A file's content; None when it is no regular file. Raises `Failed` when it cannot be read, and
        `TooMuch` when it has more than `most` bytes.
        """


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
            self._contents[path] = self._content(path, LARGEST_FILE)
        return self._contents[path]

    def image(self, path: str) -> bytes | None:
        """As `read`, of a kernel or an initramfs, which may have up to `LARGEST_IMAGE` bytes."""
        return self._content(path, LARGEST_IMAGE)

    def _content(self, path: str, most: int) -> bytes | None:
        path = posixpath.normpath(path)
        folder, name = posixpath.split(path)
        if name not in self.names(folder):
            return None
        try:
            return self._reader.content(*self._inside(path), most)
        except TooMuch as error:
            what = "any configuration file" if most == LARGEST_FILE else f"the {most} bytes that are read"
            raise Failed(path, f"is larger than {what}", "look at it inside the guest") from error

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


def reader(host: Host) -> FileReader:
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
        why: str | None = ""
        for _ in range(_TRIES):
            listing = self._ask(volume, "ls", folder.rstrip("/") + "/").output
            # Its line ends only where the folder could be read to its end; there is no other sign of it.
            if listing.endswith(b"\n"):
                names = listing[:-1].decode(errors="surrogateescape").split(" ")
                return tuple(name.rstrip("/") for name in names if name)
            if (why := self._why_no_folder(volume, folder)) is None:
                return ()
        raise _unreadable(volume, folder, why or "")

    def content(self, volume: Path, path: str, most: int) -> bytes | None:
        """As `Reader.content`."""
        for _ in range(_TRIES):
            done = self._ask(volume, "cat", path, most)
            if done.status == 0:
                return done.output
            if _NOT_REGULAR in done.complaint or _GONE.search(done.complaint):
                return None
        raise _unreadable(volume, path, done.complaint)

    def _why_no_folder(self, volume: Path, folder: str) -> str | None:
        """Why a folder that is there cannot be listed; None when there is none."""
        try:
            done = self._ask(volume, "cat", folder, LARGEST_FILE)
        except TooMuch:
            return None
        is_none = done.status == 0 or _GONE.search(done.complaint)
        return None if is_none else done.complaint.replace(_NOT_REGULAR, "a folder that cannot be listed")

    def _ask(self, volume: Path, command: str, path: str, most: int = MOST_BYTES) -> Completed:
        return _told(self._host, volume, ["grub-fstest", str(volume), command, path], _UNKNOWN, most)


class Debugfs:
    """e2fsprogs' debugfs, read-only; links are followed here, because it does not."""

    def __init__(self, host: Host) -> None:
        self._host = host
        # The first components of every path are asked for again and again: a second each on a far host.
        self._answers: dict[tuple[Path, str], bytes] = {}

    def names(self, volume: Path, folder: str) -> tuple[str, ...]:
        """As `Reader.names`."""
        return tuple(self._listed(volume, self._resolved(volume, folder)))

    def content(self, volume: Path, path: str, most: int) -> bytes | None:
        """As `Reader.content`."""
        for _ in range(_TRIES):
            resolved = self._resolved(volume, path)
            folder, name = posixpath.split(resolved)
            mode, size = self._listed(volume, folder).get(name, ("", 0))
            if mode[:3] != _FILE[:3]:
                return None
            if size > most:
                raise TooMuch(path, f"has {size} bytes")
            content = self._ask(volume, "cat", resolved, most)
            if len(content) == size:
                return content
            # It changed meanwhile: what was heard before is of no use.
            self._answers.clear()
        raise _unreadable(volume, path, f"{len(content)} of its {size} bytes came")

    def _listed(self, volume: Path, folder: str) -> dict[str, tuple[str, int]]:
        """Names, modes (octal) and sizes of a folder, from lines of /INODE/MODE/UID/GID/NAME/SIZE/."""
        found = {}
        for line in self._ask(volume, "ls -p", folder).decode(errors="surrogateescape").split("\n"):
            fields = line.split("/")
            if len(fields) == 8 and fields[1] != "0":
                found[fields[5]] = fields[2], counted(fields[6]) or 0
        return found

    def _resolved(self, volume: Path, path: str) -> str:
        """`path` without links, as far as they can be followed."""
        done, links = "/", 0
        parts = path.strip("/").split("/") if path != "/" else []
        while parts:
            name = parts.pop(0)
            here = posixpath.join(done, name)
            mode, _ = self._listed(volume, done).get(name, ("", 0))
            if mode[:3] != _LINK[:3] or links == _LINKS:
                done = here
                continue
            links += 1
            target = posixpath.normpath(posixpath.join(done, self._target(volume, here)))
            done, parts = "/", [part for part in (*target.split("/"), *parts) if part]
        return done

    def _target(self, volume: Path, link: str) -> str:
        """What a link says. A long one keeps it in a block, as a file its content."""
        told = _LINK_TARGET.search(self._ask(volume, "stat", link))
        target = told[1] if told else self._ask(volume, "cat", link)
        return target.decode(errors="surrogateescape")

    def _ask(self, volume: Path, command: str, path: str, most: int = MOST_BYTES) -> bytes:
        asked = volume, f"{command} {_spoken(volume, path)}"
        if asked not in self._answers:
            # -c: while a guest runs, the bitmaps on the disk are rarely those that their checksums are about.
            argv = ["debugfs", "-c", "-R", asked[1], str(volume)]
            for _ in range(_TRIES):
                done = _told(self._host, volume, argv, _NOT_OPEN, most)
                wrong = [said for said in _WENT_WRONG.findall(done.complaint) if not said.endswith(_ABSENT)]
                if not wrong:
                    break
            else:
                raise _unreadable(volume, path, wrong[0])
            self._answers[asked] = done.output
        return self._answers[asked]


def _spoken(volume: Path, path: str) -> str:
    """A path as debugfs takes it: in quotes, each quote twice. Raises Failed for what it cannot take."""
    if _CONTROL.search(path):
        raise Failed(
            volume,
            f"{shown(path)}: debugfs cannot be asked about such a name",
            "install grub-common on that host, or give it another name in the guest",
        )
    quoted = path.replace('"', '""')
    return f'"{quoted}"'


def _told(host: Host, volume: Path, argv: Sequence[str], closed: str, most: int) -> Completed:
    """What a program says of a volume; `closed` is what it says where it cannot open the file system. That is
    an error, and not a file system that holds nothing. Raises Failed, TooMuch.
    """
    for _ in range(_TRIES):
        done = host.run(argv, most=most)
        if closed not in done.complaint:
            return done
    # debugfs says its name, then the cause, and last what follows from it.
    words = done.complaint.split("; ")[-2:][0]
    raise Failed(
        volume,
        f"its file system cannot be read: {words}",
        "run the same command again, for a guest that runs may have been in the middle of a change; debugfs "
        "knows ext2 to ext4 alone: for others, install grub-common on that host",
    )


def _unreadable(volume: Path, path: str, why: str) -> Failed:
    return Failed(f"{shown(path)} on {volume}", f"cannot be read: {why}", _AGAIN)
