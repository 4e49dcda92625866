"""What an initramfs holds, read from archives that cpio and the real compressors made."""

import bz2
import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard
from chroot_guest import VERSION, initramfs
from guest_files import Files
from hypothesis import given, settings
from hypothesis import strategies as st

import bounded
from orchestrate.guest.boot.initramfs import modules, names, warnings
from orchestrate.guest.boot.kernels import Kernel

KERNEL = Kernel(VERSION, f"/boot/vmlinuz-{VERSION}", f"/boot/initrd.img-{VERSION}")
COMPRESSORS = {
    "plain": ["cat"],
    "gzip": ["gzip", "-c"],
    "xz": ["xz", "--check=crc32", "-c"],
    "lzma": ["xz", "--format=lzma", "-c"],
    "bzip2": ["bzip2", "-c"],
    "zstd": ["zstd", "-q", "-c"],
    "lz4": ["lz4", "-l", "-q", "-c"],
}


class Guest(Files):
    """A guest of which an initramfs can be read as well."""

    def image(self, path: str) -> bytes | None:
        return self.read(path)


def archive(folder: Path, *paths: str) -> bytes:
    """What `cpio -o` makes of files with some content at these paths."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"content of odd length " * 333)
    listed = "\n".join(paths).encode()
    argv = ["cpio", "--quiet", "-o", "-H", "newc"]
    return subprocess.run(argv, cwd=folder, input=listed, capture_output=True, check=True).stdout


def compressed(content: bytes, how: str) -> bytes:
    return subprocess.run(COMPRESSORS[how], input=content, capture_output=True, check=True).stdout


def said(image: bytes | None, **files: str) -> tuple[str, ...]:
    present = {f"/boot/{name}": content for name, content in files.items()}
    present |= {} if image is None else {KERNEL.initrd: image}
    return warnings(Guest(present), [KERNEL])


needs_cpio = pytest.mark.skipif(not shutil.which("cpio"), reason="the machine has no cpio")


@needs_cpio
@pytest.mark.parametrize("how", COMPRESSORS)
def test_every_compression_that_kernels_know_is_read(tmp_path, how):
    if not shutil.which(COMPRESSORS[how][0]):
        pytest.skip(f"the machine has no {COMPRESSORS[how][0]}")
    paths = ("init", "lib/modules/6.1/virtio_blk.ko", "lib/modules/6.1/virtio_pci.ko")
    assert names(compressed(archive(tmp_path, *paths), how)) == paths


@needs_cpio
def test_an_archive_after_microcode_is_read_as_well(tmp_path):
    early = archive(tmp_path, "kernel/x86/microcode/AuthenticAMD.bin")
    image = early + bytes(512 - len(early) % 512) + compressed(archive(tmp_path, "init"), "gzip")
    assert names(image) == ("kernel/x86/microcode/AuthenticAMD.bin", "init")


def test_a_module_counts_by_its_name_however_it_is_spelled_and_packed():
    paths = ("a/virtio-blk.ko.xz", "b/virtio_pci.ko", "c/virtio_net.conf")
    assert modules(paths) == {"virtio_blk", "virtio_pci"}


def test_an_initramfs_with_both_drivers_gives_no_warning():
    assert said(initramfs("virtio_blk", "virtio_pci")) == ()


def test_an_initramfs_made_under_xen_is_warned_of_with_the_way_out():
    (warning,) = said(initramfs("xen-blkfront", "virtio_pci"))
    assert "lacks virtio_blk" in warning
    assert "xen2kvm prepare" in warning


def test_drivers_inside_the_kernel_need_no_initramfs():
    config = {f"config-{VERSION}": "CONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_PCI=y\n"}
    assert said(initramfs("ext4"), **config) == ()


def test_without_a_configuration_the_kernels_own_list_tells_what_is_inside():
    built_in = "kernel/drivers/block/virtio_blk.ko\nkernel/drivers/virtio/virtio_pci.ko\n"
    files = {KERNEL.initrd: initramfs(), f"/lib/modules/{VERSION}/modules.builtin": built_in}
    assert warnings(Guest(files), [KERNEL]) == ()


@pytest.mark.parametrize(
    "image",
    [b"", b"no archive", initramfs("virtio_blk")[:-20], b"070701" + b"z" * 200, b"\x02\x21\x4c\x18\xff"],
    ids=["empty", "text", "cut short", "damaged", "lz4 cut short"],
)
def test_what_cannot_be_read_is_said_to_be_unknown(image):
    (warning,) = said(image)
    assert "unknown" in warning


@needs_cpio
def test_files_inside_a_file_system_image_are_said_to_be_unknown(tmp_path):
    (warning,) = said(archive(tmp_path, "init", "squashfs-root.img"))
    assert "unknown" in warning


def member(
    name: bytes, content: bytes = b"", size: bytes | None = None, length: bytes | None = None
) -> bytes:
    """One file of an archive; `size` and `length` (of its name) as given, where they lie."""
    size = b"%08X" % len(content) if size is None else size
    length = b"%08X" % (len(name) + 1) if length is None else length
    head = b"070701" + b"0" * 48 + size + b"0" * 32 + length + b"0" * 8 + name + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


@pytest.mark.parametrize(
    "image",
    [
        member(b"a", size=b"-0000070"),
        member(b"a", size=b"+0000001"),
        member(b"a", size=b"0x000001"),
        member(b"a", size=b"0000_001"),
        member(b"a", size=b"       1"),
        member(b"a", length=b"-000006E"),
        member(b"a", length=b"00400000") + bytes(4 << 20),
        member(b"a", size=b"FFFFFFFF"),
    ],
    ids=["back", "plus", "0x", "underscore", "blanks", "back by its name", "name of 4 MiB", "size of 4 GiB"],
)
def test_a_number_in_an_archive_leads_on_and_nowhere_else(image):
    with pytest.raises(ValueError, match=r"its archive"):
        names(image)


_NAMES_OF = """
import sys
from orchestrate.guest.boot.initramfs import names
try:
    print(len(names(open(sys.argv[1], "rb").read())))
except ValueError as error:
    print(error)
"""


def gibibyte_of_zeros() -> bytes:
    """A member of 1.5 GiB, in 100 KiB."""
    packing, zeros = zstandard.ZstdCompressor().compressobj(), bytes(1 << 20)
    head = packing.compress(member(b"a", size=b"60000000"))
    return b"".join([head, *(packing.compress(zeros) for _ in range(1100)), packing.flush()])


BOMBS = {
    "200000 names": (lambda: gzip.compress(member(b"a") * 200_000, 1), "more than 131072 names"),
    "1.5 GiB": (gibibyte_of_zeros, "larger than 1 GiB"),
    "a dictionary of 1.5 GiB": (lambda: b"]\0\0\0\x60" + b"\xff" * 8 + bytes(64), "cannot be decompressed"),
    "a window of 1 GiB": (lambda: b"\x28\xb5\x2f\xfd\0\xa0" + bytes(64), "cannot be decompressed"),
    "zeros": (lambda: bz2.compress(bytes(50 << 20)), "holds no archive"),
    "compressed twice": (lambda: gzip.compress(gzip.compress(member(b"a"))), "archive ends too early"),
    "a block of lz4 that is none": (lambda: b"\x02\x21\x4c\x18\xff\0\0\0" + b"\xff" * 255, "decompressed"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_an_initramfs_takes_neither_memory_nor_time(tmp_path, kind):
    bomb, cause = BOMBS[kind]
    image = tmp_path / "initrd"
    image.write_bytes(bomb())
    assert cause in bounded.run(_NAMES_OF, image, memory=1 << 30, seconds=40)


@settings(deadline=1000, max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.builds(
                member,
                st.binary(max_size=20),
                st.binary(max_size=20),
                st.one_of(st.none(), st.binary(min_size=8, max_size=8)),
                st.one_of(st.none(), st.binary(min_size=8, max_size=8)),
            ),
            st.sampled_from([gzip.compress(member(b"a")), lzma.compress(member(b"b")), bytes(513)]),
        ),
        max_size=6,
    ).map(b"".join)
)
def test_whatever_an_initramfs_holds_ends_in_names_or_in_a_reason(image):
    try:
        found = names(image)
    except ValueError as error:
        assert str(error)
    else:
        assert 0 < len(found) <= len(image)
