"""Passes between two ends: the same promises as on one machine, in both directions."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync import passes, remote
from blocksync.digests.hashes import BLAKE3
from blocksync.errors import BlocksyncError, Refused, Usage
from blocksync.extents import Extents
from blocksync.passes import PassReport, PassRequest
from blocksync.wire.messages import Role
from local_transport import Local

MIB = 2**20
GIB = 2**30
# What a pass over so little has, where none is asked for.
BLOCK = 16384
# No multiple of a sector, nor of any block.
SIZE = 5 * MIB + 12345

Image = Callable[[str, int], Path]
Attach = Callable[..., Path]

both_ways = pytest.mark.parametrize("far", ["source", "target"])


def overwrite(path: Path, *pieces: tuple[int, bytes]) -> None:
    with path.open("r+b") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)


def figures(report: PassReport) -> tuple[int, ...]:
    """What both a local and a remote pass must agree on."""
    return report.bytes_total, report.bytes_changed, report.extents_written


def test_blocks_are_small_as_long_as_their_digests_are_few() -> None:
    sizes = [0, SIZE, 64 * GIB, 64 * GIB + 1, 128 * GIB + 1, 2**50]
    assert list(map(passes.fitting_block_size, sizes)) == [BLOCK, BLOCK, BLOCK, 2 * BLOCK, 65536, 65536]


@both_ways
@pytest.mark.parametrize("block_size", [4096, 65536, 4 * MIB])
def test_the_target_range_equals_the_source_and_nothing_else_changed(
    tmp_path: Path, image: Image, installed: Local, far: Role, block_size: int
) -> None:
    source, target = image("source", SIZE), image("target", SIZE + 3 * MIB)
    before = target.read_bytes()
    request = PassRequest(source=source, target=target, target_offset=MIB, block_size=block_size)
    report = remote.run(request, far=far, transport=installed)
    after = target.read_bytes()
    assert after[MIB : MIB + SIZE] == source.read_bytes()
    assert (after[:MIB], after[MIB + SIZE :]) == (before[:MIB], before[MIB + SIZE :])
    assert (report.bytes_total, report.bytes_changed) == (SIZE, SIZE)


@both_ways
def test_a_pass_writes_what_a_local_pass_would(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source = image("source", SIZE)
    twins = [tmp_path / "near-twin", tmp_path / "far-twin"]
    for twin in twins:
        twin.write_bytes(source.read_bytes())
        overwrite(twin, (0, b"a"), (70000, b"b" * 200000), (2 * MIB, os.urandom(MIB)), (SIZE - 7, b"changed"))
    overwrite(source, (3 * MIB, bytes(MIB)))
    local = passes.run(PassRequest(source=source, target=twins[0], block_size=BLOCK))
    between = remote.run(
        PassRequest(source=source, target=twins[1], block_size=BLOCK), far=far, transport=installed
    )
    assert twins[1].read_bytes() == source.read_bytes()
    assert figures(between) == figures(local)
    assert between.changed == local.changed


@both_ways
def test_with_its_digest_file_a_pass_reads_no_target_and_writes_only_what_changed(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    request = PassRequest(source=source, target=target, digests=tmp_path / "digests")
    assert remote.run(request, far=far, transport=installed).bytes_changed == SIZE
    again = remote.run(request, far=far, transport=installed)
    assert (again.bytes_changed, again.target_bytes_read, again.notes) == (0, 0, ())
    overwrite(source, (MIB + 5, b"changed"), (SIZE - 7, b"changed"))
    third = remote.run(request, far=far, transport=installed)
    assert (third.bytes_changed, third.extents_written) == (BLOCK + SIZE % BLOCK, 2)
    assert third.target_bytes_read == 0
    assert target.read_bytes() == source.read_bytes()


@both_ways
def test_a_target_that_somebody_wrote_to_is_compared_again(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    request = PassRequest(source=source, target=target, digests=tmp_path / "digests")
    remote.run(request, far=far, transport=installed)
    overwrite(target, (2 * MIB, b"somebody"))
    report = remote.run(request, far=far, transport=installed)
    assert "stale" in report.notes[0]
    assert report.bytes_changed == BLOCK
    assert target.read_bytes() == source.read_bytes()


def test_a_digest_file_of_a_pull_is_not_believed_about_another_source(
    tmp_path: Path, image: Image, installed: Local
) -> None:
    target, file = tmp_path / "target", tmp_path / "digests"
    for name in ("one", "other"):
        source = image(name, SIZE)
        request = PassRequest(source=source, target=target, digests=file)
        report = remote.run(request, far="source", transport=installed)
        assert target.read_bytes() == source.read_bytes()
    assert "another source" in report.notes[0]


@both_ways
def test_snapshots_and_their_origin_share_one_digest_file(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    origin, target, file = image("origin", SIZE), tmp_path / "target", tmp_path / "digests"
    for number, change in enumerate((b"", b"changed")):
        overwrite(origin, (70000, change))
        snapshot = tmp_path / f"snapshot{number}"
        snapshot.write_bytes(origin.read_bytes())
        request = PassRequest(source=snapshot, origin=origin, target=target, digests=file)
        report = remote.run(request, far=far, transport=installed)
        assert (report.notes, report.bytes_changed) == ((), BLOCK if change else SIZE)
    last = remote.run(PassRequest(source=origin, target=target, digests=file), far=far, transport=installed)
    assert (last.notes, last.bytes_changed, last.target_bytes_read) == ((), 0, 0)


@both_ways
def test_zeros_become_holes(tmp_path: Path, installed: Local, far: Role) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(64 * MIB)
    overwrite(source, (10 * MIB, b"x"), (20 * MIB, bytes(MIB)))
    remote.run(PassRequest(source=source, target=target), far=far, transport=installed)
    assert target.stat().st_size == 64 * MIB
    assert target.stat().st_blocks * 512 <= MIB
    overwrite(target, (30 * MIB, os.urandom(4 * MIB)))
    report = remote.run(PassRequest(source=source, target=target), far=far, transport=installed)
    assert report.bytes_zeroed == 4 * MIB
    assert target.stat().st_blocks * 512 <= MIB
    assert target.read_bytes() == source.read_bytes()


@both_ways
def test_only_the_given_extents_are_looked_at(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    before = target.read_bytes()
    only = Extents.of([(70000, 10), (3 * MIB, 2 * 65536)])
    report = remote.run(
        PassRequest(block_size=65536, source=source, target=target, only=only), far=far, transport=installed
    )
    after, wanted = target.read_bytes(), source.read_bytes()
    assert report.bytes_total == report.bytes_changed == 3 * 65536
    assert after[65536:131072] == wanted[65536:131072]
    assert after[3 * MIB : 3 * MIB + 131072] == wanted[3 * MIB : 3 * MIB + 131072]
    assert after[:65536] == before[:65536]
    assert after[131072 : 3 * MIB] == before[131072 : 3 * MIB]


@both_ways
def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target, digests = image("source", SIZE), tmp_path / "target", tmp_path / "digests"
    request = PassRequest(source=source, target=target, digests=digests, dry_run=True)
    assert remote.run(request, far=far, transport=installed).bytes_changed == SIZE
    assert not target.exists()
    target.write_bytes(source.read_bytes())
    overwrite(target, (MIB, b"changed"))
    held = target.read_bytes()
    report = remote.run(request, far=far, transport=installed)
    assert (report.bytes_changed, report.bytes_written) == (BLOCK, 0)
    assert target.read_bytes() == held
    assert not digests.exists()


@both_ways
def test_without_comparing_everything_is_written_and_remembered(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    target.write_bytes(source.read_bytes())
    request = PassRequest(source=source, target=target, digests=tmp_path / "digests", compare=False)
    first = remote.run(request, far=far, transport=installed)
    assert first.bytes_written == SIZE
    assert remote.run(request, far=far, transport=installed).bytes_written == 0


@both_ways
def test_block_devices_are_read_and_written_directly(
    tmp_path: Path, image: Image, loop: Attach, installed: Local, far: Role
) -> None:
    backing = image("source", 6 * MIB)
    source = loop(backing, "--sector-size", 512)
    target = loop(image("target", 8 * MIB), "--sector-size", 4096)
    request = PassRequest(source=source, target=target, target_offset=MIB, digests=tmp_path / "digests")
    remote.run(request, far=far, transport=installed)
    # Behind the page cache of the device, as a guest writes: what is read through that is stale now.
    subprocess.run(["cat", source], check=True, stdout=subprocess.DEVNULL)
    overwrite(backing, (MIB, b"guest"))
    os.sync()
    report = remote.run(request, far=far, transport=installed)
    assert report.bytes_changed == BLOCK
    assert (tmp_path / "target").read_bytes()[MIB : 7 * MIB] == backing.read_bytes()


@both_ways
def test_the_hash_for_guests_that_are_not_trusted_serves_too(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    request = PassRequest(source=source, target=target, digests=tmp_path / "digests", hash=BLAKE3)
    remote.run(request, far=far, transport=installed)
    overwrite(source, (MIB, b"changed"))
    assert remote.run(request, far=far, transport=installed).bytes_changed == BLOCK
    assert target.read_bytes() == source.read_bytes()


@both_ways
def test_an_empty_source_is_copied(tmp_path: Path, installed: Local, far: Role) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.touch()
    report = remote.run(PassRequest(source=source, target=target), far=far, transport=installed)
    assert (report.bytes_total, target.stat().st_size) == (0, 0)


@both_ways
def test_a_rate_is_kept(tmp_path: Path, image: Image, installed: Local, far: Role) -> None:
    source, target = image("source", 2 * MIB), tmp_path / "target"
    request = PassRequest(source=source, target=target, bytes_per_second=2 * MIB)
    assert remote.run(request, far=far, transport=installed).seconds > 0.8


def refusal(request: PassRequest, far: Role, transport: Local) -> BlocksyncError:
    with pytest.raises((Refused, Usage)) as caught:
        remote.run(request, far=far, transport=transport)
    return caught.value


@both_ways
def test_a_target_in_use_is_refused_by_the_host_that_has_it(
    tmp_path: Path, image: Image, installed: Local, mounted_loop: Path, far: Role
) -> None:
    source, digests = image("source", MIB), tmp_path / "digests"
    held = mounted_loop.read_bytes()
    error = refusal(PassRequest(source=source, target=mounted_loop, digests=digests), far, installed)
    assert isinstance(error, Refused)
    assert error.guard == "mounted"
    assert "mountpoint" in error.cause
    assert mounted_loop.read_bytes() == held
    assert not digests.exists()


@both_ways
def test_a_target_with_a_foreign_signature_is_refused(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    target.write_bytes(bytes(SIZE))
    subprocess.run(["mkfs.ext4", "-q", target], check=True)
    held = target.read_bytes()
    error = refusal(PassRequest(source=source, target=target), far, installed)
    assert isinstance(error, Refused)
    assert error.guard == "signature"
    assert target.read_bytes() == held
    overridden = PassRequest(source=source, target=target, overrides=frozenset({"signature"}))
    remote.run(overridden, far=far, transport=installed)
    assert target.read_bytes() == source.read_bytes()


@both_ways
def test_a_target_with_the_source_s_own_signature_is_accepted(
    tmp_path: Path, installed: Local, far: Role
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(SIZE))
    subprocess.run(["mkfs.ext4", "-q", source], check=True)
    for _ in range(2):
        remote.run(PassRequest(source=source, target=target), far=far, transport=installed)
        assert target.read_bytes() == source.read_bytes()


@both_ways
def test_a_target_that_is_too_small_is_refused(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    request = PassRequest(source=source, target=target, target_offset=4096)
    error = refusal(request, far, installed)
    assert isinstance(error, Refused)
    assert error.guard == "size"


@both_ways
def test_the_source_itself_is_refused_as_a_target_when_the_other_host_is_this_one(
    tmp_path: Path, image: Image, loop: Attach, installed: Local, far: Role
) -> None:
    source = image("source", SIZE)
    other_name = tmp_path / "other-name"
    other_name.hardlink_to(source)
    for target in (other_name, loop(source)):
        error = refusal(PassRequest(source=source, target=target, size=4 * MIB), far, installed)
        assert isinstance(error, Refused)
        assert error.guard == "same"


@both_ways
@pytest.mark.parametrize("missing", ["source", "target"])
def test_a_device_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, image: Image, installed: Local, far: Role, missing: str
) -> None:
    there = image("there", SIZE)
    gone = Path("/dev/nonexistent/volume")
    source, target = (gone, there) if missing == "source" else (there, gone)
    error = refusal(PassRequest(source=source, target=target), far, installed)
    assert isinstance(error, Usage)
    assert "does not exist" in error.cause


@both_ways
def test_more_than_the_source_has_is_refused(
    tmp_path: Path, image: Image, installed: Local, far: Role
) -> None:
    target = tmp_path / "target"
    request = PassRequest(source=image("source", SIZE), target=target, size=SIZE + 1)
    error = refusal(request, far, installed)
    assert isinstance(error, Refused)
    assert error.guard == "size"
    assert not target.exists()


def test_a_proof_between_hosts_finds_each_block_that_differs(
    tmp_path: Path, image: Image, installed: Local
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    target.write_bytes(bytes(MIB) + source.read_bytes())
    same = remote.compare(source, target, target_offset=MIB, transport=installed)
    assert same.equal
    assert same.hash == "blake3"
    assert same.source_root == same.target_root != ""
    overwrite(target, (MIB + 70000, b"changed"), (MIB + SIZE - 7, b"changed"))
    other = remote.compare(source, target, target_offset=MIB, transport=installed)
    assert not other.equal
    tail = SIZE // 65536 * 65536
    assert other.differing.pairs() == [(65536, 65536), (tail, SIZE - tail)]
    assert other.target_root != same.target_root
