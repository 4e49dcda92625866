"""Loop devices that go by themselves, and when they are gone."""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blocksync.errors import Failed, telling

_PATIENCE = 10.0  # seconds for a device that a scan holds open
_POLL_SECONDS = 0.02
# linux/loop.h, from 5.8 on. struct loop_config: descriptor, block size, struct loop_info64, reserved.
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_CONFIG = struct.Struct("=2I 5Q 4I 64s 64s 32s 2Q 64x")
_READ_ONLY, _AUTOCLEAR = 1, 4


def wait_for_others(raw: Path) -> None:
    """Wait until the loop devices on the file `raw` are gone that a killed process left, or on a file that is
    gone meanwhile. Whoever is not gone after ten seconds is somebody else's, and for the guards to find.
    """
    deadline = time.monotonic() + _PATIENCE
    while _going(raw) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _going(raw: Path) -> bool:
    """Whether a device that goes with its last user is on `raw`, or on a file that nobody can reach any more:
    the file was a FUSE file system by itself, whose daemon has ended, and its path is that of a root.
    """
    return any(
        _told(device, "autoclear") == "1" and _told(device, "backing_file") in {str(raw.resolve()), "/"}
        for device in Path("/sys/block").glob("loop*")
    )


def _told(device: str | Path, what: str) -> str | None:
    try:
        return Path("/sys/block", Path(device).name, "loop", what).read_text().rstrip("\n")
    except OSError:
        return None


@contextmanager
def reading(raw: Path, offset: int, size: int) -> Iterator[Path]:
    """As `attached`, a loop device which is only read."""
    with attached(raw, offset, size, read_only=True) as device:
        yield device


@contextmanager
def attached(raw: Path, offset: int, size: int, *, read_only: bool) -> Iterator[Path]:
    """A loop device on a range of the file or device `raw`, in bytes, gone when the block ends, also when
    this process is killed; what was written is durable then. Raises `Failed`.

    A lock keeps udev from it, whose rules would look for volume groups, arrays and file systems there, and
    put together what a guest calls by the name of something on this host.
    """
    with telling(raw, "cannot be opened", "create it first, as root"):
        backing = os.open(raw, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        with telling(raw, "no loop device for it", "see `losetup --list` for what is in the way"):
            held = _attached(backing, offset, size, read_only=read_only)
        device = Path(f"/proc/self/fd/{held}").readlink()
        try:
            yield device
        finally:
            os.close(held)
            wait_for_detach([device], raw)
        if not read_only:
            # It writes through the page cache of `raw`.
            with telling(raw, "cannot be made durable", "see the kernel's messages (dmesg) for its storage"):
                os.fsync(backing)
    finally:
        os.close(backing)


def _attached(backing: int, offset: int, size: int, *, read_only: bool) -> int:
    """A descriptor of a new loop device, gone with the last of them: losetup(8) cannot say so at once."""
    deadline = time.monotonic() + _PATIENCE
    while (device := _configured(backing, offset, size, read_only=read_only)) is None:
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        time.sleep(_POLL_SECONDS)
    return device


def _configured(backing: int, offset: int, size: int, *, read_only: bool) -> int | None:
    """None when somebody else was faster to take the free device, or has it locked."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _GET_FREE)
    finally:
        os.close(control)
    flags = _AUTOCLEAR | _READ_ONLY if read_only else _AUTOCLEAR
    info = (0, 0, 0, offset, size, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    device = os.open(f"/dev/loop{number}", (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        # Before there is anything to see in it: what is locked udev leaves alone (systemd, "Locking Block
        # Device Access").
        fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(backing, 0, *info))
    except BaseException as error:
        os.close(device)
        if isinstance(error, OSError) and error.errno in {errno.EBUSY, errno.EWOULDBLOCK}:
            return None
        raise
    return device


def wait_for_detach(devices: Iterable[str | Path], raw: Path) -> None:
    """Wait until none of `devices` holds the file `raw`: autoclear detaches at the last close, which a
    scan of new devices may put off for a moment. Raises `Failed` after ten seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    for device in devices:
        while _told(device, "backing_file") in {str(raw.resolve()), "/"}:
            if time.monotonic() > deadline:
                raise Failed(
                    device,
                    f"it still holds {raw}",
                    f"end what uses it (fuser -vm {device}), then run `losetup -d {device}`",
                )
            time.sleep(_POLL_SECONDS)
