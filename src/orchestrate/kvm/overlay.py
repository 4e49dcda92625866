"""A throw-away layer over the target: fix-ups and a rehearsal write to it, the target keeps its bytes."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from blocksync.devices import image_locks
from blocksync.devices.target import Piece
from blocksync.errors import Failed, Refused, Usage, telling
from blocksync.hosts import programs
from blocksync.interruption import held_back
from blocksync.own_files import opened, replace
from blocksync.voice import voice
from orchestrate.kvm.qemu import program

_START_SECONDS = 20.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02
_FOLDER = "overlay-"
_RAW = "raw"
_QCOW2 = "overlay.qcow2"
_LOG, _PIDFILE = "storage-daemon.log", "storage-daemon.pid"
# Only a folder with this file in it is one of ours, and all that is in one has these names.
_MARK, _MARKED = "made-by-xen2kvm", b"an overlay of a disk: whatever is in this folder is thrown away\n"
_CONTENT = (_QCOW2, _RAW, _LOG, _PIDFILE, _MARK)
# What has an overlay open, or is about to.
_PROGRAMS = frozenset({"qemu-img", "qemu-storage-daemon", "qemu-system-x86_64", "qemu-kvm", "setpriv"})


@dataclass(frozen=True, slots=True)
class Overlay:
    """`qcow2` holds what differs from the raw disk `target`. It can be booted (as qcow2) or opened as a
    raw file, never both at once: QEMU's locks refuse the second. `let_go` leaves the target to who locks it
    himself, to write to it what is in the overlay; guests are not kept from it any more then.
    """

    target: Path
    qcow2: Path
    let_go: Callable[[], None]

    @contextmanager
    def raw(self) -> Iterator[Path]:
        """The overlay as a raw file of the target's size, for losetup and mount.

        Everything on top of it (mounts, loop devices) must be gone when the block ends; what was written
        is in the qcow2 file afterwards. Failed when the storage daemon does not start, dies under way, or
        when a loop device is left on the file (its unwritten data would be lost).
        """
        mountpoint = self.qcow2.with_name(_RAW)
        mountpoint.touch()
        log = self.qcow2.with_name(_LOG)
        pidfile = self.qcow2.with_name(_PIDFILE)
        with ExitStack() as stack:
            stack.callback(pidfile.unlink, missing_ok=True)
            with held_back(), log.open("wb") as output:
                argv = _daemon_command(self.qcow2, mountpoint, pidfile)
                voice.starts(argv)
                daemon = subprocess.Popen(
                    argv,
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
        done = programs.run(command, capture_output=True, text=True, check=False)
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
            replace(folder / _MARK, _MARKED, "a mark")
        kept = stack.enter_context(ExitStack())
        kept.enter_context(_kept_from_guests(target))
        layer = Overlay(target, folder / _QCOW2, kept.close)
        _create(layer)
        yield layer


def _throw_away(folder: Path) -> None:
    with held_back():
        shutil.rmtree(folder)


def remove_leftovers(directory: Path, release: Callable[[Path], None]) -> None:
    """Remove the overlays that killed processes left in `directory`. The caller keeps others from it, as by
    the lock of a job: those of ours that are there are nobody's. What has such a name and is not marked as
    ours stays, and so does whatever somebody put into one that is.

    `release` is told the raw file of each, which nobody answers for any more, and waits for what is on top
    of it. Raises `Failed` when something will not go.
    """
    for folder in directory.absolute().glob(f"{_FOLDER}*"):
        if not _is_ours(folder):
            continue
        _end_programs(folder)
        release(folder / _RAW)
        # Not mounted any more is as good.
        umount = [programs.find("umount"), "--lazy", "--", str(folder / _RAW)]
        programs.run(umount, capture_output=True, check=False)
        with telling(folder, "cannot be removed", f"end what uses it (fuser -vm {folder}), then remove it"):
            _remove(folder)


def _is_ours(folder: Path) -> bool:
    """Whether `overlay` made a folder; one that was killed in between has nothing in it, and stays."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # a file, or a link
        return False
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return False
        with opened(Path(f"/proc/self/fd/{descriptor}", _MARK), os.O_RDONLY, "a mark") as mark:
            return os.fstat(mark).st_uid == os.geteuid() and os.read(mark, len(_MARKED) + 1) == _MARKED
    except (OSError, Usage):
        return False
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    for name in _CONTENT:
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        # Somebody has put something there.
        if error.errno != errno.ENOTEMPTY:
            raise


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
    """QEMU's programs, and what is about to become one, with a file of the folder open or as an argument."""
    places = {os.fsencode(folder) + b"/", os.fsencode(folder.resolve()) + b"/"}
    return {
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if _executed(process) in _PROGRAMS and (_has_open(process, places) or _names(process, places))
    }


def _executed(process: Path) -> str:
    try:
        # Packages may have been upgraded since.
        return (process / "exe").readlink().name.removesuffix(" (deleted)")
    except OSError:  # ended while we looked
        return ""


def _has_open(process: Path, places: set[bytes]) -> bool:
    found = []
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(os.fsencode(descriptor.readlink()))
    return any(path.startswith(place) for path in found for place in places)


def _names(process: Path, places: set[bytes]) -> bool:
    """Whether an argument has one of the paths in it, from its beginning."""
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:  # ended while we looked
        return False
    return any(re.search(rb'(?:^|[\0="])' + re.escape(place), words) for place in places)


@contextmanager
def _kept_from_guests(target: Path) -> Iterator[None]:
    """Take part in QEMU's image locking, which guards a backing file only against some of its users."""
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(target, f"cannot be opened: {error.strerror}", "create it first, as root") from error
    try:
        image_locks.hold(descriptor, image_locks.NO_OTHER_WRITER)
        if image_locks.is_held(descriptor, image_locks.WRITER):
            way_out = "shut the guest down, then run the command again"
            raise Refused(target, "is written to by a running guest (QEMU's lock)", way_out, guard="held")
        yield
    finally:
        os.close(descriptor)


def _create(layer: Overlay) -> None:
    backing = str(layer.target.absolute())
    created = programs.run(
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
        # The daemon ends, and with it the FUSE mount, even when this process is killed. Of root's rights it
        # has two: to mount, and to open anybody's files.
        *(programs.find("setpriv"), "--pdeathsig", "TERM", "--no-new-privs"),
        *("--bounding-set", "-all,+sys_admin,+dac_override", "--"),
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
