"""A target made ready for a pass: found or yet to be made, guarded, opened."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocksync import devices, guards
from blocksync.devices import Device, Opened
from blocksync.errors import Usage


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
    if device is not None and not target.dry_run and not is_ours:
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
    device = device or devices.create_sparse(target.path, target.offset + target.size)
    exclusive = not guards.claims_waived(target.overrides)
    with devices.open_target(device, direct=target.is_direct(device), exclusive=exclusive) as held:
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
