"""Every guard refuses, names who or what is in the way, and leaves the target as it was."""

import fcntl
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.devices import device as devices
from blocksync.devices import guards
from blocksync.devices import target as targets
from blocksync.devices.guards import Signature
from blocksync.devices.users import KernelView
from blocksync.errors import Refused, Usage
from blocksync.passes import PassRequest
from other_processes import another_process

MIB = 2**20
SIZE = 4 * MIB
Image = Callable[[str, int], Path]
Attach = Callable[..., Path]


def run(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def contents(target: Path) -> bytes:
    with target.open("rb") as file:
        return file.read()


def refused(source: Path, target: Path, **options: object) -> Refused:
    """The refusal of a pass, after which the target holds what it held."""
    before = contents(target)
    with pytest.raises(Refused) as caught:
        passes.run(PassRequest(source=source, target=target, **options))  # type: ignore[arg-type]
    assert contents(target) == before
    return caught.value


@contextmanager
def held_open(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def test_a_mounted_target_is_refused_by_its_mount_point(image: Image, loop: Attach, tmp_path: Path) -> None:
    target, folder = loop(image("backing", 16 * MIB)), tmp_path / "mount point"
    folder.mkdir()
    run("mkfs.ext4", "-q", "-F", target)
    run("mount", target, folder)
    try:
        refusal = refused(image("source", SIZE), target)
    finally:
        run("umount", folder)
    assert (refusal.guard, str(folder) in refusal.cause) == ("mounted", True)


def test_active_swap_is_refused(image: Image, loop: Attach) -> None:
    target = loop(image("backing", 16 * MIB))
    run("mkswap", target)
    run("swapon", target)
    try:
        refusal = refused(image("source", SIZE), target)
    finally:
        run("swapoff", target)
    assert (refusal.guard, str(target) in refusal.cause) == ("swap", True)


def test_a_device_that_the_kernel_lends_to_another_is_refused(image: Image, loop: Attach) -> None:
    target = loop(image("backing", SIZE))
    with held_open(target, os.O_RDONLY | os.O_EXCL):
        assert refused(image("source", SIZE), target).guard == "held"


def test_a_file_behind_a_loop_device_is_refused_by_that_device(image: Image, loop: Attach) -> None:
    target = image("target", SIZE)
    device = loop(target)
    refusal = refused(image("source", SIZE), target)
    assert (refusal.guard, str(device) in refusal.cause) == ("held", True)


@pytest.mark.parametrize("block", [False, True])
def test_a_target_that_a_process_has_open_for_writing_is_refused_by_that_process(
    image: Image, loop: Attach, block: bool
) -> None:
    target = loop(image("backing", SIZE)) if block else image("target", SIZE)
    with another_process("held = open(sys.argv[1], 'r+b')", target) as pid:
        refusal = refused(image("source", SIZE), target)
        assert (refusal.guard, str(pid) in refusal.cause) == ("open", True)
        passes.run(PassRequest(source=image("source", SIZE), target=target, overrides=frozenset({"open"})))


def test_a_target_that_a_process_only_reads_is_no_reason(image: Image) -> None:
    target = image("target", SIZE)
    with another_process("held = open(sys.argv[1], 'rb')", target):
        passes.run(PassRequest(source=image("source", SIZE), target=target))


def test_a_locked_target_is_refused_by_the_process_that_locked_it(image: Image) -> None:
    target = image("target", SIZE)
    code = "held = open(sys.argv[1], 'rb'); fcntl.flock(held, fcntl.LOCK_EX)"
    with another_process(code, target) as pid:
        refusal = refused(image("source", SIZE), target)
    assert (refusal.guard, str(pid) in refusal.cause) == ("held", True)


def test_a_target_is_locked_and_claimed_while_it_is_open(image: Image, loop: Attach) -> None:
    target = loop(image("backing", SIZE))
    with targets.open_target(devices.measure(target), direct=True):
        with pytest.raises(OSError, match="busy"):
            os.open(target, os.O_RDONLY | os.O_EXCL)
        with held_open(target, os.O_RDONLY) as fd, pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_device_in_another_ones_place_is_refused(image: Image, loop: Attach) -> None:
    measured = devices.measure(loop(image("backing", SIZE)))
    for then in (replace(measured, size=SIZE * 2), replace(measured, number=(7, 99))):
        with pytest.raises(Refused) as caught, targets.open_target(then, direct=True):
            pass
        assert caught.value.guard == "changed"


def kernel_tree(root: Path, number: tuple[int, int]) -> Path:
    """A sysfs with one block device in it."""
    (root / "proc").mkdir(parents=True)
    node = root / f"sys/dev/block/{number[0]}:{number[1]}"
    node.mkdir(parents=True)
    return node


def test_a_part_of_another_device_is_refused_by_its_name(image: Image, loop: Attach, tmp_path: Path) -> None:
    target = devices.measure(loop(image("backing", SIZE)))
    node = kernel_tree(tmp_path, target.number)
    (node / "holders/dm-3/dm").mkdir(parents=True)
    (node / "holders/dm-3/dm/name").write_text("vg0-root\n")
    with pytest.raises(Refused) as caught:
        guards.not_in_use(target, kernel=KernelView(tmp_path / "proc", tmp_path / "sys"))
    assert (caught.value.guard, "vg0-root" in caught.value.cause) == ("held", True)


def test_the_disk_of_a_running_xen_domain_is_refused_by_its_number(
    image: Image, loop: Attach, tmp_path: Path
) -> None:
    target = devices.measure(loop(image("backing", SIZE)))
    kernel_tree(tmp_path, target.number)
    served = tmp_path / "sys/bus/xen-backend/devices/vbd-7-51713"
    served.mkdir(parents=True)
    (served / "physical_device").write_text(f"{target.number[0]:x}:{target.number[1]:x}\n")
    with pytest.raises(Refused) as caught:
        guards.not_in_use(target, kernel=KernelView(tmp_path / "proc", tmp_path / "sys"))
    assert (caught.value.guard, "domain 7" in caught.value.cause) == ("domain", True)


def test_the_source_under_any_name_is_refused(image: Image, loop: Attach, tmp_path: Path) -> None:
    source = image("source", SIZE)
    same = tmp_path / "hard link"
    same.hardlink_to(source)
    assert refused(source, same).guard == "same"
    first = loop(source, "--offset", MIB, "--sizelimit", 2 * MIB)
    overlapping = loop(source, "--offset", 2 * MIB)
    assert refused(source, first, size=2 * MIB).guard == "same"
    assert refused(first, overlapping, size=2 * MIB).guard == "same"


def test_neighbours_on_one_file_are_different_devices(image: Image, loop: Attach) -> None:
    backing = image("backing", SIZE)
    source = loop(backing, "--offset", 0, "--sizelimit", 2 * MIB)
    target = loop(backing, "--offset", 2 * MIB)
    passes.run(PassRequest(source=source, target=target))
    data = backing.read_bytes()
    assert data[: 2 * MIB] == data[2 * MIB :]


def test_sizes_and_offsets_that_do_not_fit_are_refused(image: Image, loop: Attach) -> None:
    source = image("source", SIZE)
    target = loop(image("backing", 2 * SIZE), "--sector-size", 4096)
    assert refused(source, target, target_offset=512).guard == "alignment"
    assert refused(source, target, target_offset=SIZE + 4096).guard == "size"
    assert refused(source, target, size=SIZE + 1).guard == "size"


def lvm_label(size: int) -> bytes:
    """An LVM2 label: LABELONE in sector 1, its CRC from byte 20 on (LVM2, lib/format_text/layout.h)."""
    body = struct.pack("<I8s32sQ", 32, b"LVM2 001", b"0123456789abcdef0123456789abcdef", size).ljust(
        492, b"\0"
    )
    crc = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return bytes(512) + struct.pack("<8sQI", b"LABELONE", 1, crc) + body


def md_superblock() -> bytes:
    """A version 1.2 md superblock, 4 KiB from the start (linux/raid/md_p.h)."""
    head = struct.pack("<IIII", 0xA92B4EFC, 1, 0, 0) + bytes(range(16)) + b"host:0".ljust(32, b"\0")
    return bytes(4096) + head.ljust(144, b"\0") + struct.pack("<Q", 8) + bytes(104)


@pytest.mark.parametrize("label, guard", [(lvm_label(SIZE), "lvm"), (md_superblock(), "md")])
@pytest.mark.parametrize("offset", [0, MIB])
def test_a_member_of_a_volume_group_or_array_is_refused(
    image: Image, tmp_path: Path, label: bytes, guard: str, offset: int
) -> None:
    target = tmp_path / "target"
    target.write_bytes(label.ljust(2 * SIZE, b"\0"))
    assert refused(image("source", SIZE), target, target_offset=offset).guard == guard


def test_a_foreign_file_system_is_refused_and_the_sources_own_is_not(image: Image, tmp_path: Path) -> None:
    source, target = image("source", 16 * MIB), image("target", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", source)
    run("mkfs.ext4", "-q", "-F", "-U", "11111111-2222-3333-4444-555555555555", target)
    refusal = refused(source, target)
    assert (refusal.guard, "11111111-2222-3333-4444-555555555555" in refusal.cause) == ("signature", True)
    assert "--override signature" in refusal.way_out
    assert refused(source, target, target_offset=0, size=MIB).guard == "signature"
    known = Signature("ext4", "11111111-2222-3333-4444-555555555555")
    passes.run(PassRequest(source=source, target=target, known_signatures=frozenset({known})))
    assert passes.run(PassRequest(source=source, target=target)).bytes_written == 0


def test_a_file_system_on_the_whole_target_refuses_a_range_behind_its_start(image: Image) -> None:
    target = image("target", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", target)
    assert refused(image("source", MIB), target, target_offset=8 * MIB).guard == "signature"


def test_a_partition_table_is_no_reason_against_a_range_behind_it(image: Image) -> None:
    target = image("target", 16 * MIB)
    with target.open("r+b") as file:
        file.write(bytes(4096))
    subprocess.run(["sfdisk", "-q", target], input=b"2048,,L\n", check=True)
    passes.run(PassRequest(source=image("source", MIB), target=target, target_offset=MIB))
    assert refused(image("source", MIB), target).guard == "signature"


def test_contradicting_signatures_count_as_data(image: Image, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(16 * MIB))
    run("mkfs.ext4", "-q", "-F", target)
    with target.open("r+b") as file:
        file.write(md_superblock()[:1024])
        file.seek(4096)
        file.write(md_superblock()[4096:])
        file.seek(4086)
        file.write(b"SWAPSPACE2")
    found = guards.probe(target, 0, 16 * MIB)
    assert found is not None
    assert refused(image("source", MIB), target).guard in {"md", "signature"}


def test_guards_that_protect_the_copy_itself_cannot_be_overridden(image: Image) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    for name in ("same", "size", "alignment", "changed", "nonsense"):
        with pytest.raises(Usage, match=name):
            passes.run(PassRequest(source=source, target=target, overrides=frozenset({name})))


def test_small_writes_are_guarded_too(image: Image, loop: Attach) -> None:
    target = loop(image("backing", SIZE))
    before = contents(target)
    with held_open(target, os.O_RDONLY | os.O_EXCL), pytest.raises(Refused):
        targets.write_ranges(target, [(0, b"x")])
    with pytest.raises(Usage):
        targets.write_ranges(target, [(0, b"x"), (SIZE - 1, b"xy")])
    assert contents(target) == before
    targets.write_ranges(target, [(446, b"table"), (SIZE - 2, b"xy")])
    assert devices.read_range(target, 446, 5) + devices.read_range(target, SIZE - 2, 2) == b"tablexy"
