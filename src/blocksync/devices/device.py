"""Files and block devices: measured, held open, read fresh and flushed."""

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blocksync._copy import start_writeback
from blocksync.devices import identity
from blocksync.errors import Failed, Refused, Usage, telling

# <linux/fs.h>
BLKFLSBUF = 0x1261
BLKSSZGET = 0x1268

FILE_SECTOR = 512

NOT_DURABLE = "did not make its writes durable"


@dataclass(frozen=True, slots=True)
class Device:
    """What a path was when it was measured.

    `size` is in bytes. `sector_size` is the logical sector of a block device, 512 for a file. `number` is
    (major, minor) of a block device, (st_dev, inode) of a file. `identity` outlives reboots (see
    identity.py).
    """

    path: Path
    kind: Literal["file", "block"]
    size: int
    sector_size: int
    number: tuple[int, int]
    identity: str

    @property
    def is_block(self) -> bool:
        return self.kind == "block"


@dataclass(frozen=True, slots=True)
class Opened:
    """A device held open. `align` is 1 through the page cache, else the unit of direct I/O in bytes.

    `tail_fd` goes through the page cache: for a range that ends inside a sector.
    """

    device: Device
    fd: int
    align: int
    tail_fd: int

    @property
    def is_direct(self) -> bool:
        """Whether it is read and written past the page cache."""
        return self.align > 1


def measure(path: Path) -> Device:
    """Kind, size and identity of a regular file or block device. Raises Usage when it is neither or not
    readable.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise Usage(
                path, "is neither a regular file nor a block device", "name a volume, a disk or an image file"
            )
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Usage(
            path, "does not exist", "check the path; a logical volume may need `lvchange -ay`"
        ) from None
    except OSError as error:
        raise Usage(
            path, f"cannot be opened: {error.strerror}", "run as root, or name another device"
        ) from error
    with closing(path, fd), telling(path, "cannot be measured"):
        return measured(path, fd)


@contextmanager
def closing(path: Path, fd: int) -> Iterator[None]:
    """Close at the end; that this fails is worth telling only when nothing else did."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise
    with telling(path, "cannot be closed"):
        os.close(fd)


def measured(path: Path, fd: int) -> Device:
    """The same of what is open. Raises OSError."""
    status = os.fstat(fd)
    if stat.S_ISBLK(status.st_mode):
        sector = int.from_bytes(fcntl.ioctl(fd, BLKSSZGET, bytes(4)), "little")
        size = os.lseek(fd, 0, os.SEEK_END)
        number = (os.major(status.st_rdev), os.minor(status.st_rdev))
        return Device(path, "block", size, sector, number, identity.of_block(path, status))
    number = (status.st_dev, status.st_ino)
    return Device(path, "file", status.st_size, FILE_SECTOR, number, identity.of_file(path, status))


@contextmanager
def open_source(device: Device, *, direct: bool) -> Iterator[Opened]:
    """Hold a source open, read-only; `direct` reads past the page cache. Raises Refused when it changed since
    measured.
    """
    fd = open_descriptor(device, os.O_RDONLY, direct=direct)
    with closing(device.path, fd):
        same_as_measured(device, fd)
        yield Opened(device, fd, alignment(device) if direct else 1, fd)


def begin_flush(target: Opened) -> None:
    """Let the disk begin with what was written so far, while more is written: the next `flush` has less to
    wait for. On its own this makes nothing durable.
    """
    start_writeback(target.fd)


def flush(target: Opened) -> None:
    """Return once everything written to the target so far has reached it.

    Raises Failed: what was written since the last flush must then be taken for lost.
    """
    with telling(target.device.path, NOT_DURABLE):
        os.fsync(target.fd)


def make_durable(target: Opened) -> None:
    """Flush, and leave no stale page of a block device in the cache. Raises Failed."""
    flush(target)
    if target.device.is_block:
        with telling(target.device.path, NOT_DURABLE):
            fcntl.ioctl(target.fd, BLKFLSBUF, 0)


def forget_pages(opened: Opened) -> None:
    """Let the next read of a file come from its disk: after a flush that failed, the cache may show what was
    lost.
    """
    if not opened.device.is_block:
        with telling(opened.device.path, "cannot be read afresh"):
            os.posix_fadvise(opened.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_opened(opened: Opened, offset: int, length: int) -> bytes:
    """`length` bytes from byte `offset` of a device held open, which must be inside it. Raises Failed."""
    start = offset // opened.align * opened.align
    end = -(-(offset + length) // opened.align) * opened.align
    with telling(opened.device.path, f"cannot be read at byte {start}"):
        return _read(opened.fd, start, end)[offset - start : offset - start + length]


def read_range(path: Path, offset: int, length: int) -> bytes:
    """`length` bytes from byte `offset`: from a block device with direct I/O, so never a stale page.

    Raises Usage when the range is not inside the device, Failed when it cannot be read.
    """
    device = measure(path)
    if offset < 0 or length < 0 or offset + length > device.size:
        raise Usage(
            path, f"has {device.size} bytes, not {offset} to {offset + length}", "name a range inside it"
        )
    with open_source(device, direct=device.is_block) as source:
        return read_opened(source, offset, length)


def sync_folder(folder: Path) -> None:
    """Make names made or renamed in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(fd: int, start: int, end: int) -> bytes:
    if start == end:
        return b""
    # An anonymous map is page-aligned, which direct I/O needs of its memory.
    with mmap.mmap(-1, end - start) as pages, memoryview(pages) as view:
        got = 0
        while got < end - start:
            with view[got:] as rest:
                count = os.preadv(fd, [rest], start + got)
            if count == 0:
                break
            got += count
        return bytes(view[:got])


def open_descriptor(device: Device, flags: int, *, direct: bool) -> int:
    """A descriptor of a device. Raises Usage, Failed where direct I/O is refused, and OSError (EBUSY) where
    `flags` has O_EXCL and somebody else has claimed it.
    """
    try:
        return os.open(device.path, flags | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise
        if error.errno == errno.EINVAL and direct:
            raise Failed(
                device.path,
                "refuses direct I/O, and its cached pages may be stale",
                "use --cache if nothing writes to it underneath the page cache"
                if device.is_block
                else "drop --direct",
            ) from error
        raise Usage(
            device.path, f"cannot be opened: {error.strerror}", "run as root, or name another device"
        ) from error


def goes_direct(device: Device, offset: int, *, direct: bool, cache: bool) -> bool:
    """Whether a range that starts at a byte offset is read and written past the page cache.

    A block device is, unless `cache` asks otherwise; a file only where `direct` asks for it, and the range
    starts on a page.
    """
    return not cache if device.is_block else direct and offset % alignment(device) == 0


def alignment(device: Device) -> int:
    # A file's own unit is its file system's; 4096 satisfies every one that Linux has.
    return device.sector_size if device.is_block else 4096


def data_size(device: Device) -> int | None:
    """Bytes of a file that are no holes, as its file system counts; None where nobody knows."""
    if device.is_block:
        return None
    try:
        return device.path.stat().st_blocks * 512
    except OSError:
        return None


def same_as_measured(device: Device, fd: int) -> None:
    with telling(device.path, "cannot be measured"):
        now = measured(device.path, fd)
    if (now.number, now.size, now.kind) != (device.number, device.size, device.kind):
        raise Refused(
            device.path,
            f"is not what was measured: {device.size} bytes then, {now.size} now",
            "run the command again",
            guard="changed",
        )
