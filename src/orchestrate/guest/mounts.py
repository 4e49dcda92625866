"""Mounting a guest's filesystems out of one disk, and leaving nothing behind.

Each filesystem gets a loop device of its own, cut out by offset and size, because the kernel may not know
partitions at all. mount(8) sets it up with the autoclear flag, so that it goes when the last mount does,
even if this process is killed between the two steps. The folder of the mounts is the one thing to remember.

A guest's filesystem is untrusted input to this host's kernel: mount only guests that you trust. Explicit
types, nosuid, nodev and noexec keep its files from acting; `GuestTree` keeps its links inside.
"""

import contextlib
import os
import posixpath
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blocksync import programs
from blocksync.errors import Failed, Refused, Usage
from blocksync.interruption import held_back
from orchestrate.guest.inside import open_inside
from orchestrate.guest.loop_devices import holds, is_lost, wait_for_detach
from orchestrate.guest.tree import GuestTree

# Options for reading without replaying the journal: replaying writes.
_READ_ONLY = {
    "ext2": ("ro",),
    "ext3": ("ro", "noload"),
    "ext4": ("ro", "noload"),
    "xfs": ("ro", "norecovery"),
    "btrfs": ("ro", "rescue=nologreplay"),
}
# xfs refuses a second filesystem with a known UUID: the volume that this one was copied from may be mounted.
_ALWAYS = {"xfs": ("nouuid",)}
_PATIENCE = 10.0  # seconds for a busy mount
_FOLDER = "xen2kvm-guest-"


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A filesystem inside a disk: `offset` and `size` in bytes, its type, and the guest's folder for it."""

    offset: int
    size: int
    filesystem: str
    mountpoint: str


@contextlib.contextmanager
def mounted(raw: Path, filesystems: Sequence[MountSpec], *, read_only: bool = False) -> Iterator[GuestTree]:
    """The guest whose filesystems lie in `raw` (file, block device or FUSE file), mounted meanwhile.

    One of `filesystems` must be `/`; the others are mounted at their folders inside it. On any way out
    everything is unmounted, detached and durable; signals that would end this process wait for that. Raises
    `Usage` for filesystems that do not fit together, `Refused` (guard "guest-filesystem") for a type that is
    not supported, `Failed` when a mount does not succeed or cannot be undone.
    """
    ordered = _in_order(raw, filesystems)
    # One that came between two steps could leave a file open here, by which the mount would be busy.
    with held_back(), _unmounted_after(raw, read_only=read_only) as folder:
        _mount(raw, ordered[0], str(folder), read_only=read_only)
        with GuestTree(folder) as tree:
            for spec in ordered[1:]:
                _mount_inside(raw, spec, folder, read_only=read_only)
            yield tree


def unmount_leftovers(raw: Path) -> None:
    """Unmount what killed processes left mounted of the disk `raw`, or of one that is gone meanwhile. Raises
    `Failed` when it is busy.
    """
    for folder in _leftovers():
        devices = _mount_sources(folder)
        if all(holds(device, raw) or is_lost(device) for device in devices):
            _unmount(folder)
            wait_for_detach(devices, raw)
            # Another job's command may look as well.
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()


def _leftovers() -> list[Path]:
    """Folders that were made to mount a guest on, by processes that are gone."""
    return [
        folder
        for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*")
        if not Path("/proc", folder.name.removeprefix(_FOLDER).partition("-")[0]).exists()
    ]


def _in_order(raw: Path, filesystems: Sequence[MountSpec]) -> list[MountSpec]:
    """Root first, then every folder before those under it; after checks that need no mount."""
    for spec in filesystems:
        if spec.filesystem not in _READ_ONLY:
            raise Refused(
                f"{raw} at byte {spec.offset} ({spec.mountpoint})",
                f"filesystem type {spec.filesystem!r} is not one of {', '.join(_READ_ONLY)}",
                "apply the fix-ups by hand inside the guest, and leave this volume out of the mounts",
                guard="guest-filesystem",
            )
    places = [posixpath.normpath(spec.mountpoint) for spec in filesystems]
    if "/" not in places or len(set(places)) != len(places):
        raise Usage(
            raw,
            f"a guest needs one root and no folder twice, these were given: {', '.join(places) or 'none'}",
            "give each volume its own mountpoint in the plan, and one of them /",
        )
    return sorted(filesystems, key=lambda spec: posixpath.normpath(spec.mountpoint).split("/"))


@contextlib.contextmanager
def _unmounted_after(raw: Path, *, read_only: bool) -> Iterator[Path]:
    """A new folder to mount on; at the end whatever is mounted on it or under it is gone."""
    folder = Path(tempfile.gettempdir()) / f"{_FOLDER}{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        devices = _mount_sources(folder)
        _unmount(folder)
        wait_for_detach(devices, raw)
        if devices and not read_only:
            _flush(raw)
        folder.rmdir()


def _mount_inside(raw: Path, spec: MountSpec, folder: Path, *, read_only: bool) -> None:
    """Mount at a folder of the guest, named by a descriptor: a link out of the guest cannot be followed."""
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = open_inside(root, spec.mountpoint, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise Failed(
            f"{spec.mountpoint} in the guest",
            f"it cannot be mounted there: {error.strerror}",
            "make the folder while the guest runs under Xen, or correct the mountpoint in the plan",
        ) from error
    finally:
        os.close(root)
    try:
        _mount(raw, spec, f"/proc/self/fd/{place}", read_only=read_only, descriptors=(place,))
    finally:
        os.close(place)


def _mount(
    raw: Path, spec: MountSpec, where: str, *, read_only: bool, descriptors: tuple[int, ...] = ()
) -> None:
    options = ["loop", f"offset={spec.offset}", f"sizelimit={spec.size}", "nosuid", "nodev", "noexec"]
    options += _ALWAYS.get(spec.filesystem, ())
    options += _READ_ONLY[spec.filesystem] if read_only else ("rw",)
    # --no-canonicalize: the place is a descriptor of ours and must not be turned back into a path.
    command = [programs.find("mount"), "--no-canonicalize", "-t", spec.filesystem, "-o", ",".join(options)]
    result = subprocess.run(
        [*command, "--", str(raw.resolve()), where],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        pass_fds=descriptors,
        env=programs.environment(LC_ALL="C"),
        # A mount that Ctrl-C cuts short could leave a loop device that no mount tells of.
        start_new_session=True,
    )
    if result.returncode != 0:
        raise Failed(
            f"{raw} at byte {spec.offset}",
            f"{spec.filesystem} for {spec.mountpoint} cannot be mounted: {result.stderr.strip()}",
            "check the filesystem with fsck, and `losetup -a` for a loop device that still holds the disk",
        )


def _mount_sources(folder: Path) -> tuple[str, ...]:
    """Devices of the mounts on and under `folder`."""
    return tuple(source for place, source in _mounts() if place == folder or folder in place.parents)


def _mounts() -> list[tuple[Path, str]]:
    """Where what is mounted, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [
        (Path(fields[4]), fields[fields.index("-", 6) + 2]) for fields in (line.split(" ") for line in lines)
    ]


def _unmount(folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while _mount_sources(folder):
        result = subprocess.run(
            [programs.find("umount"), "--recursive", "--", str(folder)],
            check=False,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if result.returncode != 0 and time.monotonic() > deadline:
            raise Failed(
                folder,
                f"the guest cannot be unmounted: {result.stderr.strip()}",
                f"end what uses it (fuser -vm {folder}), then run `umount -R {folder}`",
            )
        if result.returncode != 0:
            time.sleep(0.1)


def _flush(raw: Path) -> None:
    """Loop devices write through the page cache of `raw`: only its own fsync makes it durable."""
    descriptor = os.open(raw, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
