"""Loop devices that go by themselves, and when they are gone."""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blocksync.errors import Failed

_PATIENCE = 10.0  # seconds for a device that a scan holds open
_POLL_SECONDS = 0.02
# linux/loop.h, from 5.8 on. struct loop_config: descriptor, block size, struct loop_info64, reserved.
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_CONFIG = struct.Struct("=2I 5Q 4I 64s 64s 32s 2Q 64x")
_READ_ONLY, _AUTOCLEAR = 1, 4


def holds(device: str | Path, raw: Path) -> bool:
    """Whether a device is a loop device on the file `raw`."""
    return _backing(device) == str(raw.resolve())


def is_lost(device: str | Path) -> bool:
    """Whether a device is a loop device on a file that nobody can reach any more, because the file was a FUSE
    file system by itself, whose daemon has ended: then its path is that of a root.
    """
    return _backing(device) == "/"


def _backing(device: str | Path) -> str | None:
    try:
        return Path("/sys/block", Path(device).name, "loop/backing_file").read_text().rstrip("\n")
    except OSError:
        return None


@contextmanager
def reading(raw: Path, offset: int, size: int) -> Iterator[Path]:
    """A loop device on a range of the file `raw`, in bytes, which is only read, and gone when the block ends,
    also when this process is killed. Raises `Failed`.
    """
    try:
        held = _attached(raw, offset, size)
    except OSError as error:
        raise Failed(
            raw, f"no loop device for it: {error.strerror}", "see `losetup --list` for what is in the way"
        ) from error
    device = Path(f"/proc/self/fd/{held}").readlink()
    try:
        yield device
    finally:
        os.close(held)
        wait_for_detach([device], raw)


def _attached(raw: Path, offset: int, size: int) -> int:
    """A descriptor of a new loop device, gone with the last of them: losetup(8) cannot say so at once."""
    backing = os.open(raw, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while (device := _configured(backing, offset, size)) is None:
            continue
    finally:
        os.close(backing)
    return device


def _configured(backing: int, offset: int, size: int) -> int | None:
    """None when somebody else was faster to take the free device."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _GET_FREE)
    finally:
        os.close(control)
    info = (0, 0, 0, offset, size, 0, 0, 0, _READ_ONLY | _AUTOCLEAR, b"", b"", b"", 0, 0)
    device = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(backing, 0, *info))
    except BaseException as error:
        os.close(device)
        if isinstance(error, OSError) and error.errno == errno.EBUSY:
            return None
        raise
    return device


def wait_for_detach(devices: Iterable[str | Path], raw: Path) -> None:
    """Wait until none of `devices` holds the file `raw`: autoclear detaches at the last close, which a
    scan of new devices may put off for a moment. Raises `Failed` after ten seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    for device in devices:
        while holds(device, raw) or is_lost(device):
            if time.monotonic() > deadline:
                raise Failed(
                    device,
                    f"it still holds {raw}",
                    f"end what uses it (fuser -v {device}), then run `losetup -d {device}`",
                )
            time.sleep(_POLL_SECONDS)
