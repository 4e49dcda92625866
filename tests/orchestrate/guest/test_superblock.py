"""File systems whose superblocks choose how they are mounted: the kernel's own list of what is in force."""

import struct
import subprocess
from pathlib import Path

import pytest

from blocksync.errors import Refused
from orchestrate.guest.files.mounts import MountSpec, mounted

MIB = 1 << 20
# Never mounted where the option would be in force: "panic" means this host.
OWN_OPTIONS = (
    *(
        "errors=panic",
        "errors=continue",
        "commit=77",
        "data=journal",
        "data=writeback",
        "nobarrier",
        "barrier=0",
    ),
    *("discard", "nodelalloc", "noblock_validity", "grpid", "bsdgroups", "minixdf", "stripe=16"),
    *(
        "inode_readahead_blks=64",
        "max_dir_size_kb=5",
        "min_batch_time=7",
        "max_batch_time=7",
        "noinit_itable",
    ),
    *("init_itable=3", "resuid=7", "resgid=7", "nodioread_nolock", "dioread_lock", "data_err=abort"),
    *("warn_on_error", "noauto_da_alloc", "usrquota", "quota", "lazytime", "journal_ioprio=1"),
    *("nojournal_checksum", "journal_checksum", "user_xattr,acl", ",,errors=panic,,discard"),
)
NOT_TAKEN_BACK = (
    *("journal_path=/dev/loop7", "journal_dev=1793", "debug", "nouid32", "abort", "sb=8193", "norecovery"),
    *("noload", "usrjquota=aquota.user", "dax", "journal_async_commit", "nombcache", "no_such_option"),
    *("errors=panic,debug", "Errors=panic", "\x1b[31mred"),
)


def file_system(raw: Path, *mkfs: str, size: int = 24 * MIB) -> MountSpec:
    raw.touch()
    subprocess.run(["truncate", f"--size={size}", raw], check=True)
    subprocess.run([*mkfs, raw], check=True, capture_output=True)
    return MountSpec(0, size, mkfs[0].removeprefix("mkfs."), "/")


def ext(raw: Path, kind: str = "ext4", *features: str) -> MountSpec:
    return file_system(raw, f"mkfs.{kind}", "-q", "-F", *features)


def tuned(raw: Path, *options: str) -> None:
    subprocess.run(["tune2fs", *options, raw], check=True, capture_output=True)


def written(raw: Path, place: int, content: bytes) -> None:
    with raw.open("r+b") as disk:
        disk.seek(place)
        disk.write(content)


def with_own_options(raw: Path, own: str) -> MountSpec:
    """Without checksums of metadata: the superblock's own would be wrong."""
    spec = ext(raw, "ext4", "-O", "^metadata_csum")
    written(raw, 1024 + 0x200, own.encode().ljust(64, b"\0"))
    return spec


def in_force(raw: Path) -> set[str]:
    found = subprocess.run(["losetup", "-nO", "NAME", "-j", raw], check=True, capture_output=True, text=True)
    name = Path(found.stdout.strip()).name
    return set(Path("/proc/fs/ext4", name, "options").read_text().split())


@pytest.fixture
def plain(tmp_path) -> set[str]:
    raw = tmp_path / "plain.img"
    with mounted(raw, [ext(raw)]):
        return in_force(raw)


@pytest.mark.parametrize("own", OWN_OPTIONS)
def test_no_mount_option_of_the_superblock_is_in_force(tmp_path, plain, own):
    raw = tmp_path / "disk.img"
    with mounted(raw, [with_own_options(raw, own)]):
        assert in_force(raw) ^ plain == {"journal_checksum", "nojournal_checksum"}
    assert "errors=remount-ro" in plain


@pytest.mark.parametrize("own", ["journal_checksum", "nojournal_checksum", "commit=77"])
def test_nor_is_it_where_metadata_has_checksums(tmp_path, plain, own):
    raw = tmp_path / "disk.img"
    spec = ext(raw)
    tuned(raw, "-E", f"mount_opts={own}")
    with mounted(raw, [spec]):
        assert in_force(raw) == plain


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_an_error_never_stops_this_host(tmp_path, kind):
    raw = tmp_path / "disk.img"
    spec = ext(raw, kind)
    tuned(raw, "-e", "panic")
    for read_only in (False, True):
        with mounted(raw, [spec], read_only=read_only):
            assert "errors=remount-ro" in in_force(raw)


@pytest.mark.parametrize(
    "own", ["journal_data", "journal_data_writeback", "nobarrier", "discard", "nodelalloc", "bsdgroups"]
)
def test_no_default_of_the_superblock_is_in_force(tmp_path, plain, own):
    raw = tmp_path / "disk.img"
    spec = ext(raw)
    tuned(raw, "-o", own)
    with mounted(raw, [spec]):
        assert in_force(raw) == plain


@pytest.mark.parametrize("own", NOT_TAKEN_BACK)
def test_a_mount_option_that_nothing_takes_back_is_refused(tmp_path, own):
    raw = tmp_path / "disk.img"
    spec = with_own_options(raw, own)
    with pytest.raises(Refused, match="its superblock has the mount option") as refused, mounted(raw, [spec]):
        pytest.fail("it was mounted")
    assert refused.value.guard == "guest-filesystem"
    assert "tune2fs -E mount_opts=" in refused.value.way_out
    assert refused.value.cause.isprintable()


@pytest.mark.parametrize("own", ["debug", "uid16"])
def test_a_default_that_nothing_takes_back_is_refused_until_it_is_taken_out(tmp_path, own):
    raw = tmp_path / "disk.img"
    spec = ext(raw)
    tuned(raw, "-o", own)
    with pytest.raises(Refused, match="mount option") as refused, mounted(raw, [spec]):
        pytest.fail("it was mounted")
    told = refused.value.way_out
    tuned(raw, *told[told.index("tune2fs") : told.index(", on its")].split()[1:])
    with mounted(raw, [spec]):
        pass


def test_a_journal_on_a_device_of_the_guest_s_choice_is_never_opened(tmp_path):
    raw = tmp_path / "disk.img"
    spec = ext(raw)
    # As `mke2fs -J device=` leaves it: the number of a device, which on this host is somebody else's.
    commands = "set_super_value journal_inum 0\nset_super_value journal_dev 0x0701\n"
    subprocess.run(
        ["debugfs", "-w", "-f", "-", raw], input=commands.encode(), check=True, capture_output=True
    )
    for read_only in (False, True):
        with (
            pytest.raises(Refused, match="external journal") as refused,
            mounted(raw, [spec], read_only=read_only),
        ):
            pytest.fail("it was mounted")
    assert refused.value.guard == "guest-filesystem"


def test_nobody_waits_as_long_as_a_superblock_says(tmp_path):
    raw = tmp_path / "disk.img"
    spec = ext(raw, "ext4", "-O", "mmp")
    with pytest.raises(Refused, match="multiple mount protection"), mounted(raw, [spec]):
        pytest.fail("it was mounted")
    tuned(raw, "-f", "-O", "^mmp")
    with mounted(raw, [spec]):
        pass


def test_a_btrfs_of_several_devices_takes_none_of_this_host_s(tmp_path):
    raw = tmp_path / "disk.img"
    spec = file_system(raw, "mkfs.btrfs", "-q", "-f", size=128 * MIB)
    written(raw, 65536 + 0x88, struct.pack("<Q", 2))
    with pytest.raises(Refused, match="2 devices"), mounted(raw, [spec]):
        pytest.fail("it was mounted")


@pytest.mark.parametrize("place, number, named", [(48, 0, "external log"), (16, 5, "real-time device")])
def test_an_xfs_on_several_devices_takes_none_of_this_host_s(tmp_path, place, number, named):
    raw = tmp_path / "disk.img"
    spec = file_system(raw, "mkfs.xfs", "-q", "-f", size=320 * MIB)
    written(raw, place, struct.pack(">Q", number))
    with pytest.raises(Refused, match=named), mounted(raw, [spec]):
        pytest.fail("it was mounted")
