"""Who uses a target: under whatever name, through whatever loop device or partition, in whatever namespace.

Two things use the same bytes when the ends of their chains overlap (see backing.py): a whole disk and its
partition, a file and a loop device on it, two nodes of one number.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from blocksync.devices import backing as footprints
from blocksync.devices.backing import Footprint, node_of, number_of, text
from blocksync.devices.device import Device

Number = tuple[int, int]

_WRITABLE = 0o200
_MOST_INFO = 4096
# What stat(2) may wait for: an answer of another host, or of a process.
_MAY_BLOCK = frozenset({"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "lustre", "nfs", "nfs4", "smb3"})
# What serves a disk to others from within the kernel names it in such a file.
_EXPORTS = (
    "kernel/config/target/core/*/*/udev_path",
    "kernel/config/nvmet/subsystems/*/namespaces/*/device_path",
    "kernel/config/usb_gadget/*/functions/mass_storage.*/lun.*/file",
)


@dataclass(frozen=True, slots=True)
class KernelView:
    """Where the kernel tells who uses what."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


KERNEL = KernelView()


@dataclass(frozen=True)
class Bytes:
    """The bytes of a target, to be compared with what others use."""

    target: Device
    kernel: KernelView
    _seen: dict[Number, bool] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> frozenset[Number]:
        """The device and its partitions; none for a file."""
        if not self.target.is_block:
            return frozenset()
        partitions = node_of(self.target.number, self.kernel.sys).glob("*/partition")
        return frozenset({self.target.number, *(number_of(text(path.parent / "dev")) for path in partitions)})

    @cached_property
    def beneath(self) -> tuple[Number, ...]:
        """The device, and those that it is a range of: the disk of a partition, what a loop device is on."""
        return tuple(each for each, _ in self._chain if each is not None)

    @cached_property
    def _chain(self) -> tuple[tuple[Number | None, Footprint], ...]:
        if not self.target.is_block:
            return ((None, footprints.of_file(self.target.number)),)
        return tuple(footprints.chain(self.target.number, 0, self.target.size, self.kernel.sys))

    @cached_property
    def places(self) -> tuple[Footprint, ...]:
        """Where the bytes are: at the end of the chain, and underneath what is mapped."""
        end = self._chain[-1][1]
        if not self.target.is_block:
            return (end,)
        sys, size = self.kernel.sys, self.target.size
        return (end, *footprints.of_block(self.target.number, 0, size, sys, footprints.dm_table))

    @cached_property
    def inodes(self) -> frozenset[int]:
        """Of the files that hold the bytes."""
        files = (place.base.rpartition(":") for place in self.places if place.base.startswith("file "))
        return frozenset(int(inode) for _, _, inode in files)

    def has_device(self, device: Number) -> bool:
        """Whether a block device shares a byte with the target."""
        if device not in self._seen:
            theirs = footprints.whole(device, self.kernel.sys)
            shares = any(theirs.overlaps(place) for place in self.places)
            self._seen[device] = shares or device in self.nodes
        return self._seen[device]

    def has(self, status: os.stat_result) -> bool:
        """Whether a file or device node of this status shares a byte with the target."""
        if stat.S_ISBLK(status.st_mode):
            return self.has_device((os.major(status.st_rdev), os.minor(status.st_rdev)))
        theirs = footprints.of_file((status.st_dev, status.st_ino))
        return any(theirs.overlaps(place) for place in self.places)

    def has_path(self, path: str) -> bool:
        """The same of what a path leads to, if anything."""
        try:
            return self.has(Path(path).stat())
        except (OSError, ValueError):
            return False


def of(target: Device, kernel: KernelView = KERNEL) -> Iterator[tuple[str, str]]:
    """The users of a target, each after the name of the guard that minds it."""
    held = Bytes(target, kernel)
    spaces = _Namespaces.read(kernel)
    yield from _mounts(held, spaces)
    yield from _members(held, kernel)
    yield from _swaps(held, kernel)
    yield from _kernel_holders(held, kernel)
    yield from _xen_domains(held, kernel)
    yield from _loops(held, kernel)
    yield from _exports(held, kernel)
    yield from _writers(held, spaces, kernel)


def process(pid: str, kernel: KernelView = KERNEL) -> str:
    """A process as a message names it."""
    return f"process {pid} ({text(kernel.proc / pid / 'comm') or 'unknown'})"


@dataclass(frozen=True, slots=True)
class _Mount:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    id: str
    device: Number
    place: str
    kind: str
    source: str

    @classmethod
    def of(cls, line: str) -> "_Mount":
        # A path may have any other white space in it.
        before, _, after = line.partition(" - ")
        fields, (kind, source) = before.split(" "), after.split(" ")[:2]
        return cls(fields[0], number_of(fields[2]), unescape(fields[4]), kind, unescape(source))

    @property
    def may_block(self) -> bool:
        return self.kind in _MAY_BLOCK or self.kind.startswith("fuse")


@dataclass(frozen=True, slots=True)
class _Namespaces:
    """The mounts of every mount namespace that a process is in: ours first, which has no process here."""

    mounts: tuple[tuple[str, tuple[_Mount, ...]], ...]

    @classmethod
    def read(cls, kernel: KernelView) -> "_Namespaces":
        found = [("", _mountinfo(kernel.proc / "self"))]
        seen = {_link(f"{kernel.proc}/self/ns/mnt")}
        for pid in _processes(kernel):
            space = _link(f"{kernel.proc}/{pid}/ns/mnt")
            if space and space not in seen:
                seen.add(space)
                found.append((pid, _mountinfo(kernel.proc / pid)))
        return cls(tuple(found))

    def that_answer(self) -> frozenset[str]:
        """The mounts on which stat(2) waits for nobody: numbers of mounts are the machine's own."""
        return frozenset(mount.id for _, mounts in self.mounts for mount in mounts if not mount.may_block)


def _mountinfo(folder: Path) -> tuple[_Mount, ...]:
    return tuple(_Mount.of(line) for line in lines(folder / "mountinfo"))


def _mounts(held: Bytes, spaces: _Namespaces) -> Iterator[tuple[str, str]]:
    for pid, mounts in spaces.mounts:
        where = f" for {process(pid, held.kernel)}" if pid else ""
        for mount in mounts:
            # What has no device of its own, as btrfs, names one at best.
            by_name = mount.device[0] == 0 and mount.source.startswith("/dev/")
            if held.has_path(mount.source) if by_name else mount.device[0] and held.has_device(mount.device):
                yield "mounted", f"mounted on {mount.place}{where}"


def _members(held: Bytes, kernel: KernelView) -> Iterator[tuple[str, str]]:
    """A btrfs of several devices is mounted by the name of one of them."""
    for device in sorted(kernel.sys.glob("fs/btrfs/*/devices/*/dev")):
        if held.has_device(number_of(text(device))):
            yield "mounted", f"a device of the btrfs {device.parts[-4]} that is mounted"


def _swaps(held: Bytes, kernel: KernelView) -> Iterator[tuple[str, str]]:
    for line in lines(kernel.proc / "swaps")[1:]:
        path = unescape(line.split()[0])
        if held.has_path(path):
            yield "swap", f"swap space {path}"


def _kernel_holders(held: Bytes, kernel: KernelView) -> Iterator[tuple[str, str]]:
    """Devices made of this one, of a partition of it, or of a device that it is a range of."""
    for each in sorted({*held.nodes, *held.beneath}):
        for holder in sorted((node_of(each, kernel.sys) / "holders").glob("*")):
            yield "held", f"part of {text(holder / 'dm/name') or holder.name}"


def _xen_domains(held: Bytes, kernel: KernelView) -> Iterator[tuple[str, str]]:
    # xen-blkback writes what it serves as MAJOR:MINOR in hexadecimal; vbd-DOMAIN-DEVICE names the domain.
    for served in sorted(kernel.sys.glob("bus/xen-backend/devices/vbd-*/physical_device")):
        major, _, minor = text(served).partition(":")
        if minor and held.has_device((int(major, 16), int(minor, 16))):
            yield "domain", f"the disk of Xen domain {served.parent.name.split('-')[1]}"


def _loops(held: Bytes, kernel: KernelView) -> Iterator[tuple[str, str]]:
    """Loop devices on the target, mounted or not: whoever made one means to use it."""
    for backing in sorted(kernel.sys.glob("block/loop*/loop/backing_file")):
        node = backing.parent.parent
        device = number_of(text(node / "dev") or "0:0")
        if device not in held.beneath and held.has_device(device):
            yield "held", f"attached to /dev/{node.name}"


def _exports(held: Bytes, kernel: KernelView) -> Iterator[tuple[str, str]]:
    for pattern in _EXPORTS:
        for told in sorted(kernel.sys.glob(pattern)):
            if (path := text(told)) and held.has_path(path):
                yield "held", f"served to others ({told.parent})"


def _writers(held: Bytes, spaces: _Namespaces, kernel: KernelView) -> Iterator[tuple[str, str]]:
    """Processes that have the target open for writing: a running guest's QEMU, for one."""
    answer = spaces.that_answer()
    for pid in _processes(kernel):
        folder = f"{kernel.proc}/{pid}/fd"
        if any(_is_open_for_writing(folder, fd, held, answer) for fd in _entries(folder)):
            yield "open", f"open for writing in {process(pid, kernel)}"


def _is_open_for_writing(folder: str, fd: str, held: Bytes, answer: frozenset[str]) -> bool:
    path = f"{folder}/{fd}"
    try:
        # A Path for each of thousands is slow. The link's own mode tells how the file was opened.
        if not os.lstat(path).st_mode & _WRITABLE:
            return False
        link = os.readlink(path)  # noqa: PTH115
        return (
            link.startswith("/")
            and not link.startswith(("/dev/null", "/dev/pts/", "/dev/tty"))
            and (link.startswith("/dev/") or _is_worth_asking(f"{folder}info/{fd}", held, answer))
            and held.has(os.stat(path))  # noqa: PTH116
        )
    except OSError:
        # The process or the descriptor is gone.
        return False


def _is_worth_asking(info: str, held: Bytes, answer: frozenset[str]) -> bool:
    """Whether the status of an open file can matter, and waits for nobody: it does where a file system of
    another host is dead.
    """
    fd = os.open(info, os.O_RDONLY | os.O_CLOEXEC)
    try:
        told = os.read(fd, _MOST_INFO)
    finally:
        os.close(fd)
    inode = _word_after(b"\nino:", told)
    if inode and int(inode) in held.inodes:
        return True
    # Linux before 5.14 tells no inode.
    may_matter = held.target.is_block or not inode
    return may_matter and _word_after(b"\nmnt_id:", told) in answer


def _word_after(name: bytes, told: bytes) -> str:
    return "".join(word.decode() for word in told.partition(name)[2].split(None, 1)[:1])


def _processes(kernel: KernelView) -> Iterator[str]:
    """All but this one."""
    own = str(os.getpid())
    return (entry for entry in _entries(str(kernel.proc)) if entry.isdigit() and entry != own)


def _entries(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 (as above)
    except OSError:
        return ""


def unescape(field: str) -> str:
    """The kernel writes space, tab, newline and backslash in these files as \\ooo."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def lines(path: Path) -> list[str]:
    """What a file of the kernel's says, line by line."""
    return [line for line in text(path).split("\n") if line]
