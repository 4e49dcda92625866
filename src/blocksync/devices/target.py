"""Targets: found or made, guarded, held open for us alone, written durably."""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocksync import own_files
from blocksync.devices import device as devices
from blocksync.devices import guards, image_locks
from blocksync.devices.device import Device, Opened
from blocksync.errors import CHECK, Failed, Usage, telling

_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Bytes [offset, offset + size) of the target `path`, and how it is to be opened.

    `direct` and `cache` as in a PassRequest; `overrides` names guards to leave out. In a dry run nothing is
    opened for writing, or made.
    """

    path: Path
    offset: int
    size: int
    direct: bool = False
    cache: bool = False
    dry_run: bool = False
    overrides: frozenset[str] = frozenset()

    def is_direct(self, device: Device) -> bool:
        return devices.goes_direct(device, self.offset, direct=self.direct, cache=self.cache)


def find(path: Path) -> Device | None:
    """The target, measured; None for a file that is yet to be made. A device node is never made.

    Raises Usage.
    """
    if path.exists() or path.is_symlink():
        return devices.measure(path)
    if path.resolve().is_relative_to("/dev") or not path.parent.is_dir():
        raise Usage(path, "does not exist", "check the path; a logical volume may need `lvchange -ay`")
    return None


def guard(target: Range, device: Device | None, *, is_ours: bool = False) -> None:
    """Ask every guard that needs no open target; of one that is held open already, `is_ours`, only whether
    the range fits. Raises Usage, Refused.
    """
    guards.check_overrides(target.overrides)
    guards.range_fits(device or _file_to_be(target), target.offset, target.size)
    if target.dry_run or is_ours:
        return
    guards.out_of_reach(target.path, target.overrides)
    if device is not None:
        guards.not_in_use(device, target.overrides)


@contextmanager
def opened(target: Range, device: Device | None) -> Iterator[Opened]:
    """Hold the target open for writing, for us alone; a missing file is made, sparse.

    In a dry run it is held open for reading, or is an empty stand-in. Raises Usage, Refused.
    """
    if target.dry_run:
        with _as_it_is(target, device) as held:
            yield held
        return
    device = device or create_sparse(target.path, target.offset + target.size)
    exclusive = not guards.claims_waived(target.overrides)
    with open_target(device, direct=target.is_direct(device), exclusive=exclusive) as held:
        yield held


@contextmanager
def _as_it_is(target: Range, device: Device | None) -> Iterator[Opened]:
    if device is not None:
        with devices.open_source(device, direct=target.is_direct(device)) as held:
            yield held
        return
    # The file that would be made is one hole, and so is this.
    fd = os.memfd_create("target")
    try:
        os.truncate(fd, target.offset + target.size)
        yield Opened(_file_to_be(target), fd, 1, fd)
    finally:
        os.close(fd)


def _file_to_be(target: Range) -> Device:
    return Device(target.path, "file", target.offset + target.size, devices.FILE_SECTOR, (-1, -1), "")


@contextmanager
def open_target(device: Device, *, direct: bool, exclusive: bool = True) -> Iterator[Opened]:
    """Hold a target open for writing, for us alone: O_EXCL on a block device, a lock on either kind.

    Raises Refused (guard `held` or `changed`).
    """
    fd = _claimed(device, direct=direct) if exclusive and device.is_block else _shared(device, direct=direct)
    with devices.closing(device.path, fd):
        devices.same_as_measured(device, fd)
        if exclusive:
            _lock(device, fd)
        tail_fd = _reopened(device, fd)
        with devices.closing(device.path, tail_fd):
            yield Opened(device, fd, devices.alignment(device) if direct else 1, tail_fd)


def _claimed(device: Device, *, direct: bool) -> int:
    try:
        return devices.open_descriptor(device, os.O_RDWR | os.O_EXCL, direct=direct)
    except OSError as error:
        raise guards.refused_claim(device) from error


def _shared(device: Device, *, direct: bool) -> int:
    return devices.open_descriptor(device, os.O_RDWR, direct=direct)


def _reopened(device: Device, fd: int) -> int:
    """Another descriptor of what is open, through the page cache: its path may lead elsewhere by now."""
    with telling(device.path, "cannot be opened again"):
        return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


def _lock(device: Device, fd: int) -> None:
    with telling(device.path, "cannot be locked"):
        try:
            # On a whole disk the lock also keeps udev from probing data that is half written.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise guards.refused_lock(device) from None
    # No QEMU can start on it from now on; one that has it as a backing file lets nobody else write.
    image_locks.hold(fd, image_locks.WRITER, image_locks.NO_OTHER_WRITER)
    if image_locks.is_held(fd, image_locks.WRITER) or image_locks.is_held(fd, image_locks.NO_OTHER_WRITER):
        raise guards.refused_image_lock(device)


def create_sparse(path: Path, size: int) -> Device:
    """A new file of `size` bytes that is one hole. It appears whole: a crash leaves no smaller one behind.

    Raises Usage when the path exists or cannot be made, Failed when the file cannot have that size.
    """
    try:
        with own_files.fresh(path) as (fd, name, folder):
            with telling(path, f"cannot be made with {size} bytes", "use another file system"):
                os.truncate(fd, size)
                os.fsync(fd)
                _name(folder, name, path)
                os.fsync(folder)
            # By its path there may be another file already.
            return devices.measured(path, fd)
    except OSError as error:
        raise Usage(
            path, f"cannot be created: {error.strerror}", "name a new file in a folder that exists"
        ) from error


def _name(folder: int, fresh: str, path: Path) -> None:
    try:
        # Unlike a rename, a link never replaces what somebody else made meanwhile.
        os.link(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        raise Usage(path, "exists already", "name a new file") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.rename(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def write_ranges(
    path: Path, ranges: Sequence[tuple[int, bytes]], *, overrides: frozenset[str] = frozenset()
) -> None:
    """Write small pieces, each (byte offset, bytes), durably; for tables and boot code.

    Everything is checked before the first byte is written: Usage when a piece is not inside the device,
    Refused when the target is in use. Raises Failed when a write or the flush fails.
    """
    with _writing(path, [(offset, len(data)) for offset, data in ranges], overrides) as target:
        for offset, data in ranges:
            _write(target, data, offset)


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes for byte `offset` of a target, which are at byte `source` of a file; None: zeros."""

    offset: int
    length: int
    source: int | None


def write_pieces(
    path: Path, pieces: Sequence[Piece], source: Path, *, overrides: frozenset[str] = frozenset()
) -> None:
    """As `write_ranges`, of pieces of a file, of any size: at most a mebibyte is held in memory."""
    extents = [(piece.offset, piece.length) for piece in pieces]
    with source.open("rb", buffering=0) as file, _writing(path, extents, overrides) as target:
        for piece in pieces:
            for at in range(0, piece.length, _PIECE):
                length = min(_PIECE, piece.length - at)
                _write(target, _read(source, file.fileno(), piece, at, length), piece.offset + at)


@contextmanager
def _writing(path: Path, extents: Sequence[tuple[int, int]], overrides: frozenset[str]) -> Iterator[Opened]:
    """A target of which these extents, (byte offset, length), are written: checked before it is opened, and
    durable when the block ends.
    """
    device = devices.measure(path)
    for offset, length in extents:
        if offset < 0 or offset + length > device.size:
            raise Usage(
                path, f"has {device.size} bytes, not {offset} to {offset + length}", "name a larger target"
            )
    guards.out_of_reach(path, overrides)
    guards.not_in_use(device, overrides)
    with open_target(device, direct=False, exclusive=not guards.claims_waived(overrides)) as target:
        yield target
        devices.make_durable(target)


def _write(target: Opened, data: bytes, offset: int) -> None:
    with telling(target.device.path, f"cannot be written at byte {offset}"):
        own_files.write_fully(target.fd, data, offset)


def _read(path: Path, fd: int, piece: Piece, at: int, length: int) -> bytes:
    if piece.source is None:
        return bytes(length)
    with telling(path, f"cannot be read at byte {piece.source + at}"):
        data = os.pread(fd, length, piece.source + at)
    if len(data) != length:
        raise Failed(path, f"ends before byte {piece.source + at + length}", CHECK)
    return data
