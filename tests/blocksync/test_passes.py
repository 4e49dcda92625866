"""What one pass promises, on files and on loop devices."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.errors import Refused, Usage
from blocksync.extents import Extents
from blocksync.passes import PassReport, PassRequest

MIB = 2**20
Image = Callable[[str, int], Path]
Attach = Callable[..., Path]


def sync(source: Path, target: Path, **options: object) -> PassReport:
    return passes.run(PassRequest(source=source, target=target, **options))  # type: ignore[arg-type]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("size", [0, 1, 511, 513, 65536, 3 * MIB + 4097])
def test_a_missing_target_file_becomes_equal_to_the_source(image: Image, tmp_path: Path, size: int) -> None:
    source, target = image("source", size), tmp_path / "target"
    report = sync(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert report.bytes_total == report.bytes_written == size


def test_a_pass_with_an_offset_touches_nothing_outside_its_range(image: Image) -> None:
    source, target = image("source", MIB + 700), image("target", 4 * MIB)
    before = target.read_bytes()
    sync(source, target, target_offset=63 * 512)
    after = target.read_bytes()
    start, end = 63 * 512, 63 * 512 + MIB + 700
    assert after[start:end] == source.read_bytes()
    assert (after[:start], after[end:]) == (before[:start], before[end:])


@pytest.mark.parametrize("with_digests", [False, True])
def test_a_second_pass_writes_only_the_blocks_that_changed(
    image: Image, tmp_path: Path, with_digests: bool
) -> None:
    digests = tmp_path / "digests" if with_digests else None
    source, target = image("source", 8 * MIB + 1000), tmp_path / "target"
    sync(source, target, digests=digests)
    assert sync(source, target, digests=digests).bytes_written == 0
    overwrite(source, 5 * MIB + 3, b"changed")
    overwrite(source, 8 * MIB + 990, b"tail")
    report = sync(source, target, digests=digests)
    assert target.read_bytes() == source.read_bytes()
    assert (report.bytes_written, report.extents_written) == (65536 + 1000, 2)
    assert (report.target_bytes_read == 0) == with_digests


def test_zeros_become_holes_in_a_new_target(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(8 * MIB) + os.urandom(MIB) + bytes(8 * MIB))
    report = sync(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert report.bytes_written == MIB
    assert target.stat().st_blocks * 512 < 2 * MIB


def test_zeros_over_old_data_become_holes(image: Image, tmp_path: Path) -> None:
    source, target = tmp_path / "source", image("target", 8 * MIB)
    source.write_bytes(bytes(8 * MIB))
    report = sync(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert (report.bytes_written, report.bytes_zeroed) == (0, 8 * MIB)
    assert target.stat().st_blocks == 0


def test_only_looks_at_the_extents_given(image: Image, tmp_path: Path) -> None:
    source, target = image("source", 8 * MIB), tmp_path / "target"
    sync(source, target)
    overwrite(source, MIB, b"a")
    overwrite(source, 6 * MIB, b"b")
    report = sync(source, target, only=Extents.of([(6 * MIB + 5, 10)]))
    assert (report.bytes_total, report.bytes_written) == (65536, 65536)
    assert target.read_bytes()[MIB] != source.read_bytes()[MIB]
    assert target.read_bytes()[6 * MIB :] == source.read_bytes()[6 * MIB :]


def test_a_dry_run_names_what_would_be_written_and_writes_nothing(image: Image, tmp_path: Path) -> None:
    source, target = image("source", MIB), tmp_path / "target"
    assert sync(source, target, dry_run=True).bytes_changed == MIB
    assert not target.exists()
    sync(source, target)
    overwrite(source, 65536, b"x")
    before = target.read_bytes()
    assert sync(source, target, dry_run=True).changed.pairs() == [(65536, 65536)]
    assert target.read_bytes() == before


def test_no_compare_writes_everything_without_reading_the_target(image: Image) -> None:
    source, target = image("source", MIB + 5), image("target", 2 * MIB)
    report = sync(source, target, compare=False)
    assert (report.bytes_written, report.target_bytes_read) == (MIB + 5, 0)
    assert target.read_bytes()[: MIB + 5] == source.read_bytes()


@pytest.mark.parametrize("sector", [512, 4096])
def test_block_devices_are_copied_at_an_offset_with_a_tail_inside_a_sector(
    image: Image, loop: Attach, sector: int
) -> None:
    source, backing = image("source", 3 * MIB + 100), image("backing", 8 * MIB)
    before = backing.read_bytes()
    report = sync(source, loop(backing, "--sector-size", sector), target_offset=MIB)
    after = backing.read_bytes()
    assert after == before[:MIB] + source.read_bytes() + before[4 * MIB + 100 :]
    assert report.bytes_changed == 3 * MIB + 100


def test_a_block_device_source_is_read_past_stale_pages(image: Image, loop: Attach, tmp_path: Path) -> None:
    backing, target = image("backing", MIB), tmp_path / "target"
    source = loop(backing)
    # Somebody has the device open all the time, as Xen's backend has: its pages outlive our opening of it.
    with source.open("rb"):
        sync(source, target, cache=True)
        overwrite(backing, 70000, b"written underneath the device's page cache")
        assert sync(source, target, cache=True).bytes_written == 0
        assert sync(source, target).bytes_written == 65536
    assert target.read_bytes() == backing.read_bytes()


def test_what_does_not_fit_is_refused_before_a_byte_is_written(image: Image) -> None:
    source, target = image("source", MIB), image("target", MIB)
    before = target.read_bytes()
    for options, guard in (
        ({"target_offset": 512}, "size"),
        ({"target_offset": 100}, "alignment"),
        ({"size": 2 * MIB}, "size"),
    ):
        with pytest.raises(Refused) as refused:
            sync(source, target, **options)
        assert refused.value.guard == guard
    with pytest.raises(Refused) as refused:
        sync(source, source)
    assert refused.value.guard == "same"
    assert target.read_bytes() == before


def test_bad_input_makes_no_target(image: Image, tmp_path: Path) -> None:
    source, target = image("source", MIB), tmp_path / "target"
    other = image("other", 5000)
    for options in (
        {"block_size": 5000},
        {"digests": tmp_path / "no folder/digests"},
        {"digests": other},
        {"overrides": frozenset({"size"})},
        {"target_offset": -512},
    ):
        with pytest.raises((Usage, Refused)):
            sync(source, target, **options)
    assert not target.exists()
