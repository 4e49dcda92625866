"""Mounting a guest's filesystems out of one disk, and leaving nothing behind.

Each filesystem gets a loop device of its own, cut out by offset and size, because the kernel may not know
partitions at all. Devices and mounts go with this process, whatever ends it: the devices with their last
user, the mounts with a namespace that nobody else is in. So there is nothing to remember, and no path to it.

A guest's filesystem is untrusted input to this host's kernel: mount only guests that you trust. Explicit
types and options, nosuid, nodev and noexec keep its superblock and its files from acting; `GuestTree` keeps
its links inside. It is not checked before: what a guest that runs left on its disk is no clean filesystem
without its journal, which a check that writes nothing cannot replay, and checking reads all metadata while
the guest is down. What the kernel finds wrong makes it read-only, and that is an error here.
"""

import contextlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import Failed, Refused, Usage
from blocksync.interruption import held_back
from orchestrate.guest.files.inside import open_inside
from orchestrate.guest.files.loop_devices import attached, wait_for_others
from orchestrate.guest.files.namespace import Namespace, private_namespace, sync_filesystem
from orchestrate.guest.files.superblock import Mounting, mounting
from orchestrate.guest.files.tree import GuestTree

_SUPPORTED = ("ext2", "ext3", "ext4", "xfs", "btrfs")


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A filesystem inside a disk: `offset` and `size` in bytes, its type, and the guest's folder for it."""

    offset: int
    size: int
    filesystem: str
    mountpoint: str


@dataclass(frozen=True, slots=True)
class _Volume:
    """A filesystem on a loop device, and how it is mounted."""

    raw: Path
    spec: MountSpec
    how: Mounting
    device: Path

    def failed(self, cause: str, way_out: str) -> Failed:
        cause = f"{self.spec.filesystem} for {self.spec.mountpoint} {cause}"
        return Failed(f"{self.raw} at byte {self.spec.offset}", cause, way_out)


@contextlib.contextmanager
def mounted(raw: Path, filesystems: Sequence[MountSpec], *, read_only: bool = False) -> Iterator[GuestTree]:
    """The guest whose filesystems lie in `raw` (file, block device or FUSE file), mounted meanwhile.

    One of `filesystems` must be `/`; the others are mounted at their folders inside it. On any way out
    everything is unmounted, detached and durable; signals that would end this process wait for that. Raises
    `Usage` for filesystems that do not fit together, `Refused` (guard "guest-filesystem") for a type that is
    not supported, `Failed` when a mount does not succeed or cannot be undone.
    """
    ordered = _in_order(raw, filesystems)
    wanted = _wanted(raw, ordered, read_only=read_only)
    # A signal that came between two steps could leave a file open here, by which the mount would be busy.
    with held_back(), contextlib.ExitStack() as stack:
        volumes = [
            _Volume(raw, spec, how, stack.enter_context(_device(raw, spec, how)))
            for spec, how in zip(ordered, wanted, strict=True)
        ]
        namespace = stack.enter_context(private_namespace())
        roots: list[int] = []
        for volume in volumes:
            roots.append(_mount(volume, namespace, roots))
            stack.callback(os.close, roots[-1])
        with GuestTree(Path(f"/proc/self/fd/{roots[0]}")) as tree:
            yield tree
        if not read_only:
            for volume, root in zip(volumes, roots, strict=True):
                _sync(volume, root)


def _wanted(raw: Path, ordered: Sequence[MountSpec], *, read_only: bool) -> list[Mounting]:
    return [mounting(raw, spec.offset, spec.filesystem, read_only=read_only) for spec in ordered]


def unmount_leftovers(raw: Path) -> None:
    """Wait until what killed processes had mounted of the disk `raw` is unmounted: that goes by itself, with
    the process, but may take a moment.
    """
    wait_for_others(raw)


def _in_order(raw: Path, filesystems: Sequence[MountSpec]) -> list[MountSpec]:
    """Root first, then every folder before those under it; after checks that need no mount."""
    for spec in filesystems:
        if spec.filesystem not in _SUPPORTED:
            raise Refused(
                f"{raw} at byte {spec.offset} ({spec.mountpoint})",
                f"filesystem type {spec.filesystem!r} is not one of {', '.join(_SUPPORTED)}",
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


def _device(raw: Path, spec: MountSpec, how: Mounting) -> contextlib.AbstractContextManager[Path]:
    return attached(raw, spec.offset, spec.size, read_only=how.read_only)


def _mount(volume: _Volume, namespace: Namespace, roots: Sequence[int]) -> int:
    """Mount one more inside the first of `roots`, the descriptors of what is mounted; its own descriptor."""
    if not roots:
        _mount_at(volume, namespace, None)
        return namespace.root()
    # By a descriptor: a link out of the guest cannot be followed.
    place = _open_folder(roots[0], volume.spec.mountpoint)
    try:
        _mount_at(volume, namespace, place)
    finally:
        os.close(place)
    return _open_folder(roots[0], volume.spec.mountpoint)


def _mount_at(volume: _Volume, namespace: Namespace, place: int | None) -> None:
    how = volume.how
    try:
        namespace.mount(volume.device, how.driver, how.options, read_only=how.read_only, at=place)
    except OSError as error:
        raise volume.failed(
            f"cannot be mounted: {error.strerror}",
            "see the kernel's messages (dmesg), and check the filesystem with fsck",
        ) from error


def _open_folder(root: int, mountpoint: str) -> int:
    try:
        return open_inside(root, mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Failed(
            f"{mountpoint} in the guest",
            f"it cannot be mounted there: {error.strerror}",
            "make the folder while the guest runs under Xen, or correct the mountpoint in the plan",
        ) from error


def _sync(volume: _Volume, root: int) -> None:
    """Unmounting tells no error: that the kernel could not write, or made the file system read-only."""
    try:
        sync_filesystem(root)
        cause = "the kernel made it read-only" if os.fstatvfs(root).f_flag & os.ST_RDONLY else ""
    except OSError as error:
        cause = error.strerror or str(error)
    if cause:
        raise volume.failed(
            f"was not written as a whole: {cause}",
            "see the kernel's messages (dmesg), and check the filesystem of the guest's volume with fsck",
        )
