"""A digest file is trusted only while every write to the target since its commit is accounted for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.digests import history
from blocksync.digests.history import Trust, Written
from blocksync.digests.trust import Settlement
from blocksync.passes import PassReport, PassRequest

MIB = 2**20
# What a pass over so little has, where none is asked for.
BLOCK = 16384
Image = Callable[[str, int], Path]
Attach = Callable[..., Path]


@pytest.fixture(params=["file", "block device"])
def target(request: pytest.FixtureRequest, image: Image, loop: Attach) -> Path:
    backing = image("target", 8 * MIB)
    return loop(backing) if request.param == "block device" else backing


def sync(source: Path, target: Path, offset: int, digests: Path | None) -> PassReport:
    return passes.run(PassRequest(source=source, target=target, target_offset=offset, digests=digests))


def trusted(report: PassReport) -> bool:
    return report.notes == () and report.target_bytes_read == 0


def test_volumes_of_one_target_leave_each_others_digests_trusted(
    image: Image, target: Path, tmp_path: Path
) -> None:
    volumes = [(image(f"volume{i}", MIB), (2 * i + 1) * MIB, tmp_path / f"digests{i}") for i in range(3)]
    for volume, offset, digests in volumes:
        sync(volume, target, offset, digests)
    for round_ in range(3):
        for volume, offset, digests in volumes:
            with volume.open("r+b") as file:
                file.seek(round_ * BLOCK)
                file.write(os.urandom(BLOCK))
            report = sync(volume, target, offset, digests)
            assert trusted(report)
            assert report.bytes_changed == BLOCK


def test_a_pass_without_that_digest_file_makes_it_stale(image: Image, target: Path, tmp_path: Path) -> None:
    source, digests = image("source", 4 * MIB), tmp_path / "digests"
    sync(source, target, 0, digests)
    first = source.read_bytes()
    second = first[: 2 * MIB] + os.urandom(BLOCK) + first[2 * MIB + BLOCK :]
    source.write_bytes(second)
    sync(source, target, 0, None)
    source.write_bytes(first)
    report = sync(source, target, 0, digests)
    assert "stale" in report.notes[0]
    assert report.bytes_changed == BLOCK
    assert trusted(sync(source, target, 0, digests))


def test_one_byte_that_a_stranger_wrote_makes_it_stale(image: Image, target: Path, tmp_path: Path) -> None:
    source, digests = image("source", 4 * MIB), tmp_path / "digests"
    sync(source, target, 0, digests)
    with target.open("r+b") as file:
        file.seek(MIB + 3)
        file.write(bytes([source.read_bytes()[MIB + 3] ^ 1]))
    report = sync(source, target, 0, digests)
    assert "stale" in report.notes[0]
    assert report.bytes_changed == BLOCK


def test_overlapping_ranges_make_each_other_stale(image: Image, target: Path, tmp_path: Path) -> None:
    one, other = image("one", 2 * MIB), image("other", 2 * MIB)
    sync(one, target, 0, tmp_path / "digests one")
    sync(other, target, MIB, tmp_path / "digests other")
    report = sync(one, target, 0, tmp_path / "digests one")
    assert "stale" in report.notes[0]
    assert report.bytes_written == MIB


def test_a_torn_or_missing_history_explains_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history"
    for i in range(3):
        history.append(path, Written(f"s{i}", f"s{i + 1}", 4096 * i, 4096))
    assert history.explains(path, "s0", "s3", 2**20, 4096)
    assert not history.explains(path, "s0", "s3", 8192, 4096)
    assert not history.explains(path, "s0", "s4", 2**20, 4096)
    data = path.read_bytes()
    last_line = len(data.splitlines()[-1])
    for cut in range(2, last_line):
        path.write_bytes(data[:-cut])
        assert not history.explains(path, "s0", "s3", 2**20, 4096)
        assert history.explains(path, "s0", "s2", 2**20, 4096)
    history.append(path, Written("s2", "s3", 8192, 4096))
    assert history.explains(path, "s0", "s3", 2**20, 4096)
    path.unlink()
    assert not history.explains(path, "s0", "s3", 2**20, 4096)
    assert history.explains(path, "s3", "s3", 2**20, 4096)


def test_a_history_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"{Written(f's{i}', f's{i + 1}', 0, 512).to_line()}\n" for i in range(5000)))
    history.append(path, Written("s5000", "s5001", 0, 512))
    assert history.explains(path, "s4900", "s5001", 512, 512)
    assert len(path.read_text().splitlines()) == history.LONGEST // 2


def test_a_killed_pass_leaves_the_other_ranges_digests_believed(
    image: Image, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = [(image(f"volume{i}", MIB), (2 * i + 1) * MIB, tmp_path / f"digests{i}") for i in range(3)]
    for volume, offset, digests in volumes:
        sync(volume, target, offset, digests)
    killed, where, table = volumes[1]
    killed.write_bytes(os.urandom(MIB))
    with monkeypatch.context() as patch:
        patch.setattr(Settlement, "settle", killed_here)
        with pytest.raises(Killed):
            sync(killed, target, where, table)
    assert trusted(sync(*volumes[0][:1], target, *volumes[0][1:]))
    # That the next pass of the killed range has settled does not take away what leads there.
    sync(killed, target, where, table)
    assert trusted(sync(*volumes[2][:1], target, *volumes[2][1:]))


def test_a_stranger_s_write_after_passes_that_ended_makes_every_file_stale(
    image: Image, target: Path, tmp_path: Path
) -> None:
    volumes = [(image(f"volume{i}", MIB), (2 * i + 1) * MIB, tmp_path / f"digests{i}") for i in range(2)]
    for volume, offset, digests in volumes * 2:
        volume.write_bytes(os.urandom(MIB))
        sync(volume, target, offset, digests)
    with target.open("r+b") as file:
        file.seek(7 * MIB)
        file.write(b"elsewhere")
    for volume, offset, digests in volumes:
        assert "stale" in sync(volume, target, offset, digests).notes[0]


def test_a_pass_that_wrote_nothing_new_closes_its_line(tmp_path: Path) -> None:
    path = tmp_path / "history"
    for line in (Written("s0", "?", 0, 10), Written("s0", "s0", 0, 10)):
        history.append(path, line)
    assert history.explains(path, "s0", "s1", 20, 5) is Trust.NONE


def test_of_a_pass_that_did_not_end_the_next_stamp_is_taken_for_its_own(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history.append(path, Written("s0", "?", 0, 10))
    assert history.explains(path, "s0", "s0", 20, 5) is Trust.CERTAIN
    assert history.explains(path, "s0", "s1", 20, 5) is Trust.LIKELY
    assert history.explains(path, "s0", "s1", 5, 5) is Trust.NONE
    for line in (Written("s1", "?", 0, 10), Written("s1", "s2", 0, 10)):
        history.append(path, line)
    assert history.explains(path, "s0", "s2", 20, 5) is Trust.LIKELY
    assert history.explains(path, "s1", "s2", 20, 5) is Trust.CERTAIN
    assert history.explains(path, "s0", "s3", 20, 5) is Trust.NONE


class Killed(BaseException):
    """What kill -9 looks like from inside."""


def killed_here(_: Settlement) -> None:
    raise Killed
