"""Several volumes pulled into one target at the same time: each as if it were pulled alone."""

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from killed_jobs import forked, wait_for

from blocksync import remote
from blocksync.devices.device import measure
from blocksync.devices.target import open_target
from blocksync.digests import digest_file
from blocksync.digests.digest_file import Binding, BlockState
from blocksync.digests.trust import Ended, Settlement
from blocksync.errors import ExitCode, Failed, Interrupted, Refused, Usage
from blocksync.extents import Extents
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Progress
from blocksync.remote import PassPart
from blocksync.transports.child import ChildChannel
from local_transport import Local

MIB = 2**20
# What a pass over so little has, where none is asked for.
BLOCK = 16384
# The second and the fourth end inside a sector.
SIZES = (3 * MIB, 2 * MIB + 777, 5 * MIB, MIB + 99)
AROUND = 8192
LARGE = 24 * MIB
KILLS = 12

Image = Callable[[str, int], Path]

# A far end whose words take their time: 64 KiB in so many seconds.
SLOWLY = """
import subprocess, sys, time
far = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE)
while piece := far.stdout.read1(65536):
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    time.sleep(float(sys.argv[1]))
"""


@dataclass
class Disk:
    """A target with room for several volumes, and something between them."""

    sources: list[Path]
    target: Path
    offsets: list[int]
    folder: Path
    before: bytes

    @classmethod
    def of(cls, folder: Path, sources: Sequence[Path]) -> "Disk":
        offsets, end = [], AROUND
        for source in sources:
            offsets.append(end)
            end += -(-source.stat().st_size // 4096) * 4096 + AROUND
        before = random.Random(1).randbytes(end)
        target = folder / "target"
        target.write_bytes(before)
        return cls(list(sources), target, offsets, folder, before)

    def requests(self) -> list[PassRequest]:
        return [
            PassRequest(
                source=source,
                target=self.target,
                target_offset=offset,
                size=source.stat().st_size,
                digests=self.folder / f"{number}.digests",
            )
            for number, (source, offset) in enumerate(zip(self.sources, self.offsets, strict=True))
        ]

    def pull(self, transport: Local, progress: Callable[[Progress], None] | None = None) -> list[PassReport]:
        parts = [PassPart(request, progress or _quiet) for request in self.requests()]
        return remote.run_several(parts, transport=transport, name="far")

    def check(self) -> None:
        """Each range equals its volume, and nothing else changed."""
        expected = bytearray(self.before)
        for source, offset in zip(self.sources, self.offsets, strict=True):
            data = source.read_bytes()
            expected[offset : offset + len(data)] = data
        assert self.target.read_bytes() == expected


@pytest.fixture
def disk(tmp_path: Path, image: Image) -> Disk:
    return Disk.of(tmp_path, [image(f"volume{number}", size) for number, size in enumerate(SIZES)])


def _quiet(progress: Progress) -> None:
    return None


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def slowly(transport: Local, seconds: float = 0.01) -> Local:
    return replace(transport, prefix=(sys.executable, "-c", SLOWLY, str(seconds)))


def figures(report: PassReport) -> tuple[object, ...]:
    return report.bytes_changed, report.target_bytes_read, report.notes


NOTHING = (0, 0, ())


def test_each_range_becomes_equal_to_its_volume_and_nothing_else_changes(disk: Disk, installed: Local):
    reports = disk.pull(installed)
    disk.check()
    assert [report.bytes_changed for report in reports] == list(SIZES)


def test_a_block_device_is_claimed_once_for_all(disk: Disk, installed: Local, loop: Callable[..., Path]):
    image = disk.target
    with image.open("ab") as file:
        file.truncate(-(-image.stat().st_size // 4096) * 4096)
    disk.before = image.read_bytes()
    disk.target = loop(image)
    for _ in range(2):
        disk.pull(installed)
        disk.check()
    assert image.read_bytes() == disk.target.read_bytes()


def test_what_is_remembered_of_each_volume_is_believed_by_the_next_passes(disk: Disk, installed: Local):
    disk.pull(installed)
    overwrite(disk.sources[2], MIB, b"changed")
    reports = disk.pull(installed)
    assert [figures(report) for report in reports] == [NOTHING, NOTHING, (BLOCK, 0, ()), NOTHING]
    overwrite(disk.sources[1], 0, b"changed")
    # One alone afterwards, and another that saw none of these writes.
    for number, changed in ((1, BLOCK), (3, 0)):
        report = remote.run(disk.requests()[number], far="source", transport=installed, name="far")
        assert figures(report) == (changed, 0, ())
    assert [figures(report) for report in disk.pull(installed)] == [NOTHING] * len(SIZES)
    disk.check()


def test_digests_of_another_range_are_spared_by_passes_that_ran_together(disk: Disk, installed: Local):
    other = disk.requests()[0]
    remote.run(other, far="source", transport=installed, name="far")
    rest = [PassPart(request, _quiet) for request in disk.requests()[1:]]
    remote.run_several(rest, transport=installed, name="far")
    assert figures(remote.run(other, far="source", transport=installed, name="far")) == NOTHING


def test_what_a_stranger_wrote_is_noticed_by_each(disk: Disk, installed: Local):
    disk.pull(installed)
    overwrite(disk.target, disk.offsets[2] + 2 * MIB + 70000, b"somebody")
    reports = disk.pull(installed)
    assert all("stale" in report.notes[0] for report in reports)
    assert sum(report.bytes_changed for report in reports) == BLOCK
    disk.check()


def test_a_failure_stops_the_others_and_what_they_did_is_kept(tmp_path: Path, installed: Local, image: Image):
    sizes = (LARGE, SIZES[1], SIZES[2])
    disk = Disk.of(tmp_path, [image(f"volume{number}", size) for number, size in enumerate(sizes)])
    parts = [PassPart(request, _quiet) for request in disk.requests()]
    away = disk.sources[1].rename(disk.folder / "away")
    with pytest.raises(Usage) as failed:
        remote.run_several(parts, transport=slowly(installed), name="far")
    assert "does not exist" in failed.value.cause
    away.rename(disk.sources[1])
    reports = disk.pull(installed)
    disk.check()
    # The first was stopped before its end, and goes on from there; the last had not begun.
    assert 0 < reports[0].bytes_changed < LARGE
    assert [report.bytes_changed for report in reports[1:]] == [SIZES[1], SIZES[2]]
    assert all(report.notes == () for report in reports)


def test_a_signal_stops_all_at_a_safe_point_and_they_go_on(disk: Disk, installed: Local):
    def interrupt(progress: Progress) -> None:
        if progress.bytes_changed:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        disk.pull(slowly(installed), interrupt)
    assert "SIGINT" in stopped.value.cause
    reports = disk.pull(installed)
    disk.check()
    assert all(report.notes == () for report in reports)
    assert sum(report.bytes_changed for report in reports) < sum(SIZES)


def test_a_display_that_fails_ends_the_passes_and_is_told(disk: Disk, installed: Local):
    def show(progress: Progress) -> None:
        raise Failed("snapshot", "overflowed")

    with pytest.raises(Failed, match="overflowed"):
        disk.pull(slowly(installed), show)
    disk.pull(installed)
    disk.check()


def test_progress_is_told_by_the_thread_that_asked_and_reaches_the_end_of_each(disk: Disk, installed: Local):
    seen: dict[int, list[tuple[int, int]]] = {}
    threads = set()

    def part(number: int, request: PassRequest) -> PassPart:
        def show(progress: Progress) -> None:
            threads.add(threading.current_thread())
            seen.setdefault(number, []).append((progress.bytes_done, progress.bytes_total))

        return PassPart(request, show)

    remote.run_several(
        [part(number, request) for number, request in enumerate(disk.requests())], transport=installed
    )
    assert threads == {threading.main_thread()}
    assert {number: moments[-1] for number, moments in seen.items()} == {
        number: (size, size) for number, size in enumerate(SIZES)
    }


@dataclass
class Counting:
    """A transport that counts the commands that run at the same time."""

    beneath: Local
    most: int = 0
    _channels: list[ChildChannel] = field(default_factory=list)

    def run(self, argv: Sequence[str]) -> ChildChannel:
        channel = self.beneath.run(argv)
        self._channels.append(channel)
        self.most = max(self.most, sum(map(self._is_running, self._channels)))
        return channel

    def close(self) -> None:
        self.beneath.close()

    def describe(self) -> str:
        return self.beneath.describe()

    def _is_running(self, channel: ChildChannel) -> bool:
        with suppress(TimeoutError):
            channel.wait(0)
            return False
        return True


@pytest.mark.parametrize(("rate", "most"), [(None, 2), (64 * MIB, 1)])
def test_so_many_run_at_a_time_and_a_rate_is_for_all_of_them(
    disk: Disk, installed: Local, rate: int | None, most: int
):
    transport = Counting(installed)
    parts = [PassPart(replace(request, bytes_per_second=rate), _quiet) for request in disk.requests()]
    remote.run_several(parts, transport=transport, at_once=2)
    assert transport.most == most
    disk.check()


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(disk: Disk, installed: Local):
    parts = [PassPart(replace(request, dry_run=True), _quiet) for request in disk.requests()]
    reports = remote.run_several(parts, transport=installed)
    assert [report.bytes_changed for report in reports] == list(SIZES)
    assert disk.target.read_bytes() == disk.before
    assert not list(disk.folder.glob("*.digests"))


def test_ranges_that_share_a_byte_are_refused_before_anything_is_written(disk: Disk, installed: Local):
    disk.offsets[2] = disk.offsets[1]
    with pytest.raises(Usage, match="two volumes"):
        disk.pull(installed)
    assert disk.target.read_bytes() == disk.before


def test_a_target_that_another_process_holds_is_refused(disk: Disk, installed: Local):
    with open_target(measure(disk.target), direct=False), pytest.raises(Refused) as refused:
        disk.pull(installed)
    assert refused.value.guard == "held"
    assert disk.target.read_bytes() == disk.before


def test_after_a_flush_that_failed_no_digest_file_of_them_is_believed(tmp_path: Path, image: Image):
    target = image("target", 2 * MIB)
    with open_target(measure(target), direct=False) as opened:
        settlement = Settlement(opened)
        tables = []
        for number in range(2):
            binding = Binding(
                source="a volume", target="a disk", size=MIB, target_offset=number * MIB, block_size=65536
            )
            table = digest_file.load(tmp_path / f"{number}.digests", binding)
            table.mark_in_progress()
            tables.append(table)
        settlement.add(Ended(table=tables[0], offset=0, size=MIB, complete=True, wrote=True, looked=True))
        settlement.lose()
        settlement.settle()
    for table in tables:
        again = digest_file.load(table.path, table.header.binding)
        assert not again.trusted
        assert "did not end" in again.distrust
        assert table.header.state is not BlockState.PARTIAL


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_time_they_are_resumed(disk: Disk, installed: Local, seed: int):
    disk.pull(installed)
    chance = random.Random(seed)
    for source in disk.sources:
        overwrite(source, chance.randrange(MIB // 2), chance.randbytes(MIB // 2))

    def pull() -> int:
        disk.pull(slowly(installed, 0.002))
        return ExitCode.DONE

    child = forked(pull)
    timer = threading.Timer(chance.uniform(0.05, 0.6), lambda: os.kill(child, signal.SIGKILL))
    timer.start()
    status = wait_for(child)
    timer.cancel()
    assert status in (ExitCode.DONE, -signal.SIGKILL)
    disk.pull(installed)
    disk.check()
    assert [figures(report) for report in disk.pull(installed)] == [NOTHING] * len(SIZES)


def test_a_pull_over_extents_that_is_killed_costs_what_it_was_about(
    disk: Disk, installed: Local, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def dies(_: Settlement) -> None:
        raise Killed

    disk.pull(installed)
    for source in disk.sources[:3]:
        overwrite(source, MIB, os.urandom(3 * BLOCK))
    only = Extents.of([(MIB, 3 * BLOCK)])
    about = [replace(request, only=only) for request in disk.requests()[:3]]
    with monkeypatch.context() as patch:
        patch.setattr(Settlement, "settle", dies)
        # One of the three does not come to its turn.
        with pytest.raises(Killed):
            remote.run_several(
                [PassPart(request, _quiet) for request in about[:2]], transport=installed, name="far"
            )
    reports = remote.run_several(
        [PassPart(request, _quiet) for request in about], transport=installed, name="far"
    )
    disk.check()
    assert not any(report.compared_all for report in reports)
    assert all(report.target_bytes_read <= 3 * BLOCK for report in reports)
    assert all(report.target_bytes_read == 0 for report in disk.pull(installed))
