"""What one pass promises, on files and on loop devices."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync import passes, verify
from blocksync.digests import digest_file
from blocksync.digests.hashes import BLAKE3
from blocksync.errors import Failed, Refused, Usage
from blocksync.extents import Extents
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Progress

MIB = 2**20
# What a pass over so little has, where none is asked for.
BLOCK = 16384

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
    assert (report.bytes_changed, report.extents_written) == (BLOCK + 1000, 2)
    assert (report.target_bytes_read == 0) == with_digests


@pytest.mark.parametrize("with_digests", [False, True])
def test_only_the_pages_that_differ_are_written_to_a_file_that_is_cached(
    image: Image, tmp_path: Path, with_digests: bool
) -> None:
    digests = tmp_path / "digests" if with_digests else None
    source, target = image("source", MIB + 100), tmp_path / "target"
    sync(source, target, digests=digests)
    for offset in (BLOCK + 4096, BLOCK + 3 * 4096 - 8, MIB + 50):
        overwrite(source, offset, os.urandom(16))
    report = sync(source, target, digests=digests)
    assert (report.bytes_changed, report.bytes_written) == (BLOCK + 100, 3 * 4096 + 100)
    assert target.read_bytes() == source.read_bytes()


def test_whole_blocks_are_written_to_a_file_that_is_not_cached(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The spot check would bring pages back.
    monkeypatch.setattr(digest_file, "_picks", lambda blocks: [])
    source, target, digests = image("source", MIB), tmp_path / "target", tmp_path / "digests"
    sync(source, target, digests=digests)
    overwrite(source, 10 * BLOCK, os.urandom(16))
    with target.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    report = sync(source, target, digests=digests)
    assert (report.bytes_changed, report.bytes_written) == (BLOCK, BLOCK)
    assert target.read_bytes() == source.read_bytes()


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


def test_overwriting_without_comparing_writes_zeros_as_well(tmp_path: Path, image: Image) -> None:
    source, target = tmp_path / "source", image("target", 2 * MIB)
    source.write_bytes(bytes(2 * MIB))
    report = sync(source, target, compare=False)
    assert (report.bytes_written, report.bytes_zeroed) == (2 * MIB, 0)
    assert target.read_bytes() == bytes(2 * MIB)


def test_only_looks_at_the_extents_given(image: Image, tmp_path: Path) -> None:
    source, target = image("source", 8 * MIB), tmp_path / "target"
    sync(source, target)
    overwrite(source, MIB, os.urandom(16))
    overwrite(source, 6 * MIB, os.urandom(16))
    report = sync(source, target, only=Extents.of([(6 * MIB + 5, 10)]))
    assert (report.bytes_total, report.bytes_changed) == (BLOCK, BLOCK)
    assert target.read_bytes()[MIB : 2 * MIB] != source.read_bytes()[MIB : 2 * MIB]
    assert target.read_bytes()[6 * MIB :] == source.read_bytes()[6 * MIB :]


def test_snapshots_and_their_origin_share_one_digest_file(image: Image, tmp_path: Path) -> None:
    origin, target, digests = image("origin", MIB), tmp_path / "target", tmp_path / "digests"
    for number, change in enumerate((b"", b"first", b"second")):
        overwrite(origin, 70000, change)
        snapshot = tmp_path / f"snapshot{number}"
        snapshot.write_bytes(origin.read_bytes())
        report = sync(snapshot, target, origin=origin, digests=digests)
        assert report.notes == ()
        assert report.target_bytes_read == 0
        assert report.bytes_changed == (BLOCK if change else MIB)
    overwrite(origin, 0, b"after the last snapshot")
    last = sync(origin, target, digests=digests)
    assert (last.notes, last.bytes_changed, last.target_bytes_read) == ((), BLOCK, 0)
    assert target.read_bytes() == origin.read_bytes()


def test_a_target_that_is_the_snapshot_s_own_origin_is_refused(image: Image) -> None:
    origin, snapshot = image("origin", MIB), image("snapshot", MIB)
    before = origin.read_bytes()
    with pytest.raises(Refused):
        sync(snapshot, origin, origin=origin)
    assert origin.read_bytes() == before


def test_a_dry_run_names_what_would_be_written_and_writes_nothing(image: Image, tmp_path: Path) -> None:
    source, target = image("source", MIB), tmp_path / "target"
    assert sync(source, target, dry_run=True).bytes_changed == MIB
    assert not target.exists()
    sync(source, target)
    overwrite(source, BLOCK, os.urandom(16))
    before = target.read_bytes()
    assert sync(source, target, dry_run=True).changed.pairs() == [(BLOCK, BLOCK)]
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
        assert sync(source, target, cache=True).bytes_changed == 0
        assert sync(source, target).bytes_changed == BLOCK
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


def test_memory_is_flat_and_bound_by_the_digests(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    size = 256 * 2**30
    with source.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"the only data")
    # The peak of the process alone: getrusage's counts what it was forked from.
    code = (
        "import sys; from blocksync.commands import entry as cli; code = cli.carry_out(sys.argv[1:]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(code)"
    )
    words = ["sync", source, target, "--digests", tmp_path / "digests"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    peak = int(done.stdout.splitlines()[-1]) * 1024
    assert peak < 150e6 + 16 * (size // 65536)


def test_a_pass_over_few_extents_reads_few_digests(tmp_path: Path) -> None:
    source, target, digests = tmp_path / "source", tmp_path / "target", tmp_path / "digests"
    with source.open("wb") as file:
        file.truncate(2**40)
    only = Extents.of([(2**39, MIB)])
    sync(source, target, digests=digests, only=only)
    overwrite(source, 2**39, os.urandom(MIB))
    report = sync(source, target, digests=digests, only=only)
    assert (report.bytes_total, report.bytes_written) == (MIB, MIB)
    assert digests.stat().st_blocks * 512 < MIB


def test_blake3_finds_what_changed_as_well(image: Image, tmp_path: Path) -> None:
    source, target, digests = image("source", 3 * MIB + 5), tmp_path / "target", tmp_path / "digests"
    sync(source, target, digests=digests, hash=BLAKE3)
    overwrite(source, 2 * MIB, b"changed")
    report = sync(source, target, digests=digests, hash=BLAKE3)
    assert (report.bytes_changed, report.target_bytes_read) == (BLOCK, 0)
    assert target.read_bytes() == source.read_bytes()


def test_the_rate_is_kept(image: Image, tmp_path: Path) -> None:
    report = sync(image("source", 4 * MIB), tmp_path / "target", bytes_per_second=8 * MIB)
    # Looked at and written: 8 MiB in all, the last segment of it unpaid.
    assert 0.8 < report.seconds < 3


@pytest.mark.parametrize("tail", [0, 1, 513])
def test_direct_reads_of_files_copy_every_byte(image: Image, tmp_path: Path, tail: int) -> None:
    source, target = image("source", 3 * MIB + tail), tmp_path / "target"
    sync(source, target, direct=True)
    assert target.read_bytes() == source.read_bytes()
    overwrite(source, MIB + 1, os.urandom(16))
    assert sync(source, target, direct=True).bytes_written == BLOCK
    assert target.read_bytes() == source.read_bytes()


def test_progress_counts_up_to_everything(image: Image, tmp_path: Path) -> None:
    seen: list[Progress] = []
    request = PassRequest(
        source=image("source", 3 * MIB), target=tmp_path / "target", bytes_per_second=8 * MIB
    )
    passes.run(request, progress=seen.append)
    done = [moment.bytes_done for moment in seen]
    assert done == sorted(done)
    assert (done[-1], seen[-1].bytes_total, seen[-1].bytes_written) == (3 * MIB, 3 * MIB, 3 * MIB)
    # Written, and not yet flushed: not counted.
    assert all(moment.bytes_done == 0 for moment in seen[:-1])


def test_a_device_that_ends_early_is_named_with_the_offset(image: Image, tmp_path: Path) -> None:
    source, target = image("source", 64 * MIB), tmp_path / "target"
    shortened = False

    def shorten(progress: Progress) -> None:
        nonlocal shortened
        if not shortened:
            os.truncate(source, 40 * MIB + 7)
            shortened = True

    request = PassRequest(source=source, target=target, bytes_per_second=100 * MIB)
    with pytest.raises(
        Failed, match=f"{source}: cannot be read at byte {40 * MIB + 7}: the device ends there"
    ):
        passes.run(request, progress=shorten)


def test_direct_reads_at_an_offset_inside_a_page_are_right_too(image: Image) -> None:
    source, target = image("source", MIB + 9), image("target", 2 * MIB)
    sync(source, target, direct=True, target_offset=63 * 512)
    assert target.read_bytes()[63 * 512 :][: MIB + 9] == source.read_bytes()
    assert verify.compare(source, target, direct=True, target_offset=63 * 512).equal


@pytest.mark.parametrize(("size", "digests"), [(2**62, True), (2**55, True), (2**62, False)])
def test_a_source_whose_blocks_no_memory_can_hold_is_refused_before_anything_is_made(
    tmp_path: Path, size: int, digests: bool
) -> None:
    # So large a file is possible in memory, where it is one hole.
    subprocess.run(["mount", "-t", "tmpfs", "large", tmp_path], check=True)
    try:
        (tmp_path / "source").touch()
        os.truncate(tmp_path / "source", size)
        request = PassRequest(
            source=tmp_path / "source",
            target=tmp_path / "target",
            digests=tmp_path / "digests" if digests else None,
        )
        with pytest.raises(Refused, match="what is remembered of its blocks") as caught:
            passes.run(request)
        assert caught.value.guard == "size"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
