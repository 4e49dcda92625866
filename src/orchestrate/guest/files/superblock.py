"""What a file system's superblock asks of the kernel that mounts it, and what the kernel is told instead.

A superblock is the guest's. That of ext2 to ext4 holds mount options, and what is to be done at an error: the
whole host stops, if it says so. They and xfs may name another device for the journal, and btrfs is put
together from all devices that say to belong to it. Options that are given win over those of the superblock.
So each is taken back by name, and a file system with one that cannot be is not mounted.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import Failed, Refused
from blocksync.foreign import shown_bytes

_EXT_PLACE, _EXT_MAGIC = 1024, 0xEF53
# struct ext4_super_block: s_magic, s_feature_compat, _incompat and _ro_compat, s_journal_dev,
# s_default_mount_opts, s_mount_opts.
_EXT = struct.Struct("<56x H 34x 3I 124x I 24x I 252x 64s")
_HAS_JOURNAL = 0x4
_MULTIPLE_MOUNT_PROTECTION = 0x100
_METADATA_CHECKSUMS = 0x400
# Among those that the superblock sets by a bit alone, these two have no opposite.
_DEFAULTS_TO_STAY = {0x1: b"debug", 0x10: b"nouid32"}
_EXT_ALWAYS = (
    "errors=remount-ro",
    "commit=5",
    "barrier",
    "nodiscard",
    "delalloc",
    "nogrpid",
    "block_validity",
    "auto_da_alloc",
)
_TAKEN_BACK_ALWAYS = frozenset(
    (
        *(b"errors", b"commit", b"data", b"barrier", b"nobarrier", b"discard", b"nodiscard"),
        *(b"delalloc", b"nodelalloc", b"grpid", b"bsdgroups", b"nogrpid", b"sysvgroups"),
        *(b"block_validity", b"noblock_validity", b"auto_da_alloc", b"noauto_da_alloc"),
        # In force whatever anybody says.
        *(b"acl", b"user_xattr"),
    )
)
# Not every kernel knows these: said only where the superblock says the opposite.
_TAKEN_BACK = {
    b"bsddf": "bsddf",
    b"minixdf": "bsddf",
    b"stripe": "stripe=0",
    b"inode_readahead_blks": "inode_readahead_blks=32",
    b"max_dir_size_kb": "max_dir_size_kb=0",
    b"min_batch_time": "min_batch_time=0",
    b"max_batch_time": "max_batch_time=15000",
    b"journal_ioprio": "journal_ioprio=3",
    b"init_itable": "init_itable",
    b"noinit_itable": "init_itable",
    b"resuid": "resuid=0",
    b"resgid": "resgid=0",
    b"dioread_lock": "dioread_nolock",
    b"nodioread_nolock": "dioread_nolock",
    b"dioread_nolock": "dioread_nolock",
    b"data_err": "data_err=ignore",
    b"lazytime": "nolazytime",
    b"warn_on_error": "nowarn_on_error",
    b"quota": "noquota",
    b"usrquota": "noquota",
    b"grpquota": "noquota",
}
_JOURNAL_CHECKSUM = frozenset({b"journal_checksum", b"nojournal_checksum"})

# struct xfs_dsb: sb_magicnum, sb_rblocks, sb_logstart.
_XFS = struct.Struct(">4s 12x Q 24x Q")
# struct btrfs_super_block: magic, num_devices.
_BTRFS_PLACE = 65536
_BTRFS = struct.Struct("<64x 8s 64x Q")


@dataclass(frozen=True, slots=True)
class Mounting:
    """How the kernel is told to mount a file system."""

    driver: str
    options: tuple[str, ...]
    read_only: bool


def mounting(raw: Path, offset: int, filesystem: str, *, read_only: bool) -> Mounting:
    """How to mount the file system of this type at byte `offset` of the disk `raw`, so that nothing of its
    superblock's choice is in force. With `read_only` no journal is replayed: replaying writes.

    Raises `Refused` (guard "guest-filesystem") where the superblock leaves no choice, `Failed` where it
    cannot be read.
    """
    found = _Superblock(raw, offset)
    options: tuple[str, ...]
    match filesystem:
        case "xfs":
            found.require_one_device(_xfs_devices(found))
            # It refuses a second file system with a known UUID: the volume that this one was copied from may
            # be mounted.
            options = ("nouuid", "norecovery") if read_only else ("nouuid",)
        case "btrfs":
            found.require_one_device(_btrfs_devices(found))
            options = ("rescue=nologreplay",) if read_only else ()
        case _:
            options = tuple(_ext_options(found, read_only=read_only))
    # One driver for ext2 to ext4, whatever the kernel has besides: its options are those that we know.
    return Mounting("ext4" if filesystem.startswith("ext") else filesystem, options, read_only)


@dataclass(frozen=True, slots=True)
class _Superblock:
    raw: Path
    offset: int

    def read(self, layout: struct.Struct, place: int) -> tuple[int | bytes, ...]:
        """The fields; none where the disk ends before them."""
        try:
            descriptor = os.open(self.raw, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = os.pread(descriptor, layout.size, self.offset + place)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Failed(self.raw, f"cannot be read: {error.strerror}", "create it first, as root") from error
        return layout.unpack(content) if len(content) == layout.size else ()

    def require_one_device(self, others: str) -> None:
        """Raises `Refused` where the file system says that it needs `others`."""
        if others:
            raise self.refused(f"it names {others}, which would be a device of this host's")

    def refused(self, cause: str, way_out: str = "") -> Refused:
        return Refused(
            f"{self.raw} at byte {self.offset}",
            f"its file system is not mounted: {cause}",
            way_out or "apply the fix-ups by hand inside the guest, and leave this volume out of the mounts",
            guard="guest-filesystem",
        )


def _ext_options(found: _Superblock, *, read_only: bool) -> Iterator[str]:
    match found.read(_EXT, _EXT_PLACE):
        case (
            magic,
            int(compatible),
            int(incompatible),
            int(ro_compatible),
            journal,
            int(defaults),
            bytes(own),
        ):
            if magic != _EXT_MAGIC:
                return
        case _:
            return
    has_journal = bool(compatible & _HAS_JOURNAL)
    found.require_one_device("an external journal" if has_journal and journal else "")
    if incompatible & _MULTIPLE_MOUNT_PROTECTION and not read_only:
        # Its block says how long that is: up to 18 hours.
        raise found.refused(
            "multiple mount protection has whoever mounts it wait as long as it says",
            "switch it off where the guest is down: tune2fs -O ^mmp, on its volume under Xen",
        )
    own_names = {word.partition(b"=")[0] for word in own.split(b"\0")[0].split(b",") if word}
    own_names |= {name for bit, name in _DEFAULTS_TO_STAY.items() if defaults & bit}
    yield from _EXT_ALWAYS
    if read_only:
        yield "noload"
    elif has_journal:
        yield "data=ordered"
    if own_names & _JOURNAL_CHECKSUM:
        yield "journal_checksum" if ro_compatible & _METADATA_CHECKSUMS else "nojournal_checksum"
    for name in sorted(own_names - _TAKEN_BACK_ALWAYS - _JOURNAL_CHECKSUM):
        if name not in _TAKEN_BACK:
            raise found.refused(
                f"its superblock has the mount option {shown_bytes(name)!r}, which nothing takes back",
                "take it out where the guest is down: tune2fs -E mount_opts= -o ^debug,^uid16, on its "
                "volume under Xen",
            )
        yield _TAKEN_BACK[name]


def _xfs_devices(found: _Superblock) -> str:
    match found.read(_XFS, 0):
        case (b"XFSB", _, 0):
            return "an external log"
        case (b"XFSB", blocks, _) if blocks:
            return "a real-time device"
    return ""


def _btrfs_devices(found: _Superblock) -> str:
    match found.read(_BTRFS, _BTRFS_PLACE):
        case (b"_BHRfS_M", int(count)) if count != 1:
            return f"{count} devices"
    return ""
