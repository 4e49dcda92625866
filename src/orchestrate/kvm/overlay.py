"""A throw-away layer over the target: fix-ups and a rehearsal write to it, the target keeps its bytes."""

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import Failed, Refused, telling
from blocksync.interruption import held_back
from blocksync.targets import Piece
from orchestrate.kvm.qemu import program

_START_SECONDS = 20.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02
_FOLDER = "overlay-"
_RAW = "raw"
_LOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_WRITER = 101
_NO_OTHER_WRITER = 201


@dataclass(frozen=True, slots=True)
class Overlay:
    """`qcow2` holds what differs from the raw disk `target`. It can be booted (as qcow2) or opened as a
    raw file, never both at once: QEMU's locks refuse the second."""

    target: Path
    qcow2: Path

    @contextmanager
    def raw(self) -> Iterator[Path]:
        """The overlay as a raw file of the target's size, for losetup and mount.

        Everything on top of it (mounts, loop devices) must be gone when the block ends; what was written
        is in the qcow2 file afterwards. Failed when the storage daemon does not start, dies under way, or
        when a loop device is left on the file (its unwritten data would be lost).
        """
        mountpoint = self.qcow2.with_name(_RAW)
        mountpoint.touch()
        log = self.qcow2.with_name("storage-daemon.log")
        pidfile = self.qcow2.with_name("storage-daemon.pid")
        with ExitStack() as stack:
            stack.callback(pidfile.unlink, missing_ok=True)
            with held_back(), log.open("wb") as output:
                daemon = subprocess.Popen(
                    _daemon_command(self.qcow2, mountpoint, pidfile),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Ctrl-C at the terminal must not take the file from under a mounted filesystem.
                    start_new_session=True,
                )
                stack.callback(_end, daemon, log)
            _await_export(daemon, pidfile, log)
            yield mountpoint
            _flush(mountpoint)

    def pieces(self) -> tuple[Piece, ...]:
        """What was written to it, once nobody has it open: clusters of the disk. Raises Failed."""
        command = [program("qemu-img"), "map", "--output=json", str(self.qcow2)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(self.qcow2, f"cannot be looked through: {done.stderr.strip()}", "run it again")
        return tuple(
            Piece(each["start"], each["length"], None if each["zero"] else each["offset"])
            for each in json.loads(done.stdout)
            if each["depth"] == 0 and (each["data"] or each["zero"])
        )


@contextmanager
def overlay(target: Path, directory: Path) -> Iterator[Overlay]:
    """A new overlay on the raw disk `target` (file or block device), kept in a folder of its own inside
    `directory` and deleted with it when the block ends, however it ends.

    The target is opened read-only, and no QEMU can start to write to it meanwhile. Refused ("held") when
    a running guest writes to it, Failed when it cannot be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with held_back():
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=directory.absolute()))
            stack.callback(_throw_away, folder)
        layer = Overlay(target, folder / "overlay.qcow2")
        with _kept_from_guests(target):
            _create(layer)
            yield layer


def _throw_away(folder: Path) -> None:
    with held_back():
        shutil.rmtree(folder)


def remove_leftovers(directory: Path, release: Callable[[Path], None]) -> None:
    """Remove the overlays that killed processes left in `directory`. The caller keeps others from it, as by
    the lock of a job: whatever is there is nobody's.

    `release` is told the raw file of each, which nobody answers for any more, and lets go of what is on top
    of it. Raises `Failed` when something will not go.
    """
    for folder in directory.absolute().glob(f"{_FOLDER}*"):
        _end_programs(folder)
        release(folder / _RAW)
        # Not mounted any more is as good.
        subprocess.run(["umount", "--lazy", "--", str(folder / _RAW)], capture_output=True, check=False)
        with telling(folder, "cannot be removed", f"end what uses it (fuser -vm {folder}), then remove it"):
            shutil.rmtree(folder)


def _end_programs(folder: Path) -> None:
    """End QEMU's programs that have an overlay open: they outlive who started them, if only by a moment."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_SECONDS
        for pid in _programs(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while running := _programs(folder):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return
    raise Failed(folder, f"is open in processes that do not end: {sorted(running)}", "restart this host")


def _programs(folder: Path) -> set[int]:
    """The processes of QEMU's programs, or about to become one, with the folder's name in an argument."""
    found = set()
    for told in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = told.read_bytes().split(b"\0")
        except OSError:  # ended while we looked
            continue
        is_qemu = any(Path(os.fsdecode(word)).name.startswith("qemu-") for word in words)
        if is_qemu and any(folder.name.encode() in word for word in words):
            found.add(int(told.parent.name))
    return found


@contextmanager
def _kept_from_guests(target: Path) -> Iterator[None]:
    """Take part in QEMU's image locking, which guards a backing file only against some of its users.

    A QEMU that writes to an image has a shared lock on byte 101, one that lets nobody else write has one
    on byte 201 (`raw_apply_lock_bytes` in QEMU's block/file-posix.c). We take the second.
    """
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(target, f"cannot be opened: {error.strerror}", "create it first, as root") from error
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, _NO_OTHER_WRITER))
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, _WRITER))
        if _LOCK.unpack(answer)[0] != fcntl.F_UNLCK:
            way_out = "shut the guest down, then run the command again"
            raise Refused(target, "is written to by a running guest (QEMU's lock)", way_out, guard="held")
        yield
    finally:
        os.close(descriptor)


def _lock(kind: int, offset: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, offset, 1, 0)


def _create(layer: Overlay) -> None:
    backing = str(layer.target.absolute())
    created = subprocess.run(
        [program("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, str(layer.qcow2)],
        capture_output=True,
        text=True,
        check=False,
    )
    if created.returncode != 0:
        way_out = "check that it can be read and that there is space for the overlay"
        raise Failed(layer.target, f"no overlay on it: {created.stderr.strip()}", way_out)


def _daemon_command(qcow2: Path, mountpoint: Path, pidfile: Path) -> list[str]:
    # It does not outlive this process: waiting for the disk after each file of the guest is for nothing.
    cache = {"no-flush": True}
    file = {"node-name": "file", "driver": "file", "filename": str(qcow2), "locking": "on", "cache": cache}
    layer = {"node-name": "overlay", "driver": "qcow2", "file": "file", "discard": "unmap"}
    export = {
        "id": "raw",
        "type": "fuse",
        "node-name": "overlay",
        "mountpoint": str(mountpoint),
        "writable": True,
    }
    return [
        # The daemon ends, and with it the FUSE mount, even when this process is killed.
        *("setpriv", "--pdeathsig", "TERM", "--"),
        program("qemu-storage-daemon"),
        *("--blockdev", json.dumps(file)),
        *("--blockdev", json.dumps(layer)),
        *("--export", json.dumps(export)),
        # Written once all of the above is in place.
        *("--pidfile", str(pidfile)),
    ]


def _await_export(daemon: subprocess.Popen[bytes], pidfile: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not pidfile.exists():
        if daemon.poll() is not None:
            way_out = "check that /dev/fuse exists and that nothing else has the overlay open"
            raise Failed("qemu-storage-daemon", f"did not start: {_said(log)}", way_out)
        if time.monotonic() > deadline:
            raise Failed("qemu-storage-daemon", f"not ready after {_START_SECONDS:g} s: {_said(log)}")
        time.sleep(_POLL_SECONDS)


def _flush(raw: Path) -> None:
    users = _loop_devices_on(raw)
    if users:
        raise Failed(raw, f"still in use by {', '.join(users)}", f"losetup --detach {' '.join(users)}")
    descriptor = os.open(raw, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise Failed(raw, f"flushing the overlay: {error.strerror}", "check the space left") from error
    finally:
        os.close(descriptor)


def _loop_devices_on(path: Path) -> list[str]:
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().rstrip("\n") == str(path.resolve()):
                found.append(f"/dev/{backing.parent.parent.name}")
        except OSError:  # detached while we looked
            continue
    return sorted(found)


def _end(daemon: subprocess.Popen[bytes], log: Path) -> None:
    """SIGTERM makes the daemon flush, close the qcow2 file and unmount the export."""
    gone_before = daemon.poll() is not None
    with held_back():
        if not gone_before:
            daemon.send_signal(signal.SIGTERM)
        try:
            code = daemon.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            cause = f"did not end within {_STOP_SECONDS:g} s: {_said(log)}"
            raise Failed("qemu-storage-daemon", cause) from None
    if gone_before or code != 0:
        raise Failed("qemu-storage-daemon", f"ended early with code {code}: {_said(log)}")


def _said(log: Path) -> str:
    return log.read_text(errors="replace").strip() or "it said nothing"
