"""What an initramfs holds, read from archives that cpio and the real compressors made."""

import shutil
import subprocess
from pathlib import Path

import pytest
from chroot_guest import VERSION, initramfs
from guest_files import Files

from orchestrate.guest.initramfs import modules, names, warnings
from orchestrate.guest.kernels import Kernel

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
