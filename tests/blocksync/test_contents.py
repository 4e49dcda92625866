"""Formats that libblkid does not know are known here, and a range is empty only if all of it is zero."""

import gzip
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.devices import contents, guards
from blocksync.devices import device as devices
from blocksync.devices.contents import FORMATS
from blocksync.errors import Refused
from blocksync.passes import PassRequest

MIB = 2**20
SIZE = 4 * MIB
Image = Callable[[str, int], Path]
Attach = Callable[..., Path]


def qemu_image(kind: str, *options: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        argv = ["qemu-img", "create", "-q", "-f", kind, *options, str(path), str(SIZE)]
        subprocess.run(argv, check=True)

    return make


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("name")
        member.size = SIZE
        archive.addfile(member, io.BytesIO(bytes(SIZE)))


def compressed(*command: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        done = subprocess.run([*command, "-c"], input=os.urandom(SIZE), capture_output=True, check=True)
        path.write_bytes(done.stdout)

    return make


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("name", os.urandom(SIZE))


MADE: dict[str, Callable[[Path], None]] = {
    "qcow2": qemu_image("qcow2"),
    "vmdk": qemu_image("vmdk"),
    "vdi": qemu_image("vdi"),
    "vhdx": qemu_image("vhdx"),
    "vhd": qemu_image("vpc"),
    "vhd of a fixed size": qemu_image("vpc", "-o", "subformat=fixed"),
    "qed": qemu_image("qed"),
    "parallels": qemu_image("parallels"),
    "tar": tar,
    "zip": zipped,
    "gzip": lambda path: path.write_bytes(gzip.compress(os.urandom(SIZE))) and None,
    "bzip2": compressed("bzip2"),
    "xz": compressed("xz"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_file_of_a_known_format_is_no_target(image: Image, tmp_path: Path, name: str) -> None:
    target = tmp_path / "other.raw"
    MADE[name](target)
    if target.stat().st_size < SIZE:
        os.truncate(target, SIZE)
    before = target.read_bytes()
    source = image("source", 64 * 1024)
    # At its start, and behind it: it is the whole that is somebody's.
    for offset in (0, MIB):
        with pytest.raises(Refused) as caught:
            passes.run(PassRequest(source=source, target=target, target_offset=offset))
        assert caught.value.guard == "signature"
        assert name.split(maxsplit=1)[0] in caught.value.cause
    assert target.read_bytes() == before
    passes.run(PassRequest(source=source, target=target, overrides=frozenset({"signature"})))


def test_the_source_s_own_format_is_no_reason(tmp_path: Path) -> None:
    for name in ("source", "target"):
        tar(tmp_path / name)
    with (tmp_path / "source").open("r+b") as file:
        file.seek(MIB)
        file.write(b"changed")
    passes.run(PassRequest(source=tmp_path / "source", target=tmp_path / "target"))
    assert (tmp_path / "source").read_bytes() == (tmp_path / "target").read_bytes()


def test_a_disk_of_ours_and_random_bytes_are_of_no_format(image: Image, tmp_path: Path) -> None:
    assert guards.probe(image("random", MIB), 0, MIB) is None
    (tmp_path / "short").write_bytes(b"x")
    assert guards.probe(tmp_path / "short", 0, 1) is None
    assert contents.name_of(bytes(4096), bytes(512)) is None


def test_every_mark_is_long_enough_not_to_be_found_by_chance() -> None:
    assert min(sum(len(mark) for _, mark in each.marks) for each in FORMATS) >= 3
    assert all(offset + len(mark) <= contents.HEAD for each in FORMATS for offset, mark in each.marks)


def looked_at(path: Path, offset: int, size: int) -> tuple[int | None, list[int]]:
    told: list[int] = []
    device = devices.measure(path)
    with devices.open_source(device, direct=device.is_block) as opened:
        return contents.first_data(opened, offset, size, told.append), told


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("at", [512, 513, 5 * MIB, 9 * MIB - 1])
def test_one_byte_anywhere_in_a_range_is_data(tmp_path: Path, loop: Attach, block: bool, at: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 512 + bytes(9 * MIB - 512) + b"y" * 512)
    path = loop(disk) if block else disk
    start, size = 512, 9 * MIB - 512
    assert looked_at(path, start, size)[0] is None
    assert looked_at(path, start - 1, size)[0] == start - 1
    assert looked_at(path, start, size + 1)[0] == start + size
    with disk.open("r+b") as file:
        file.seek(at)
        file.write(b"\1")
        os.fsync(file.fileno())
    assert looked_at(path, start, size)[0] == at


def test_a_range_is_looked_at_as_far_as_is_told(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(9 * MIB))
    found, told = looked_at(tmp_path / "disk", MIB, 7 * MIB)
    assert (found, told, told[-1]) == (None, sorted(told), 7 * MIB)


def test_holes_cost_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 2**43)
    assert looked_at(disk, 0, 2**43) == (None, [])
    with disk.open("r+b") as file:
        file.seek(2**42)
        file.write(b"\1")
    assert looked_at(disk, 0, 2**43)[0] == 2**42
