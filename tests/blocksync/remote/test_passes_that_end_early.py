"""Passes between two ends that are stopped, or whose target's disk is full: what they did is kept."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import local_transport
from blocksync import remote
from blocksync.errors import Failed, Interrupted
from blocksync.passes import PassRequest
from blocksync.progress import Progress
from blocksync.wire.messages import Role
from local_transport import Local

MIB = 2**20
SIZE = 12 * MIB

Image = Callable[[str, int], Path]

both_ways = pytest.mark.parametrize("far", ["source", "target"])


@both_ways
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_pass_between_two_ends_at_a_safe_point(
    tmp_path: Path, image: Image, installed: Local, far: Role, number: signal.Signals
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    request = PassRequest(source=source, target=target, digests=tmp_path / "digests")

    def interrupt(progress: Progress) -> None:
        if progress.bytes_changed:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as stopped:
        remote.run(
            replace(request, bytes_per_second=6 * MIB), far=far, transport=installed, progress=interrupt
        )
    assert number.name in stopped.value.cause
    report = remote.run(request, far=far, transport=installed)
    assert target.read_bytes() == source.read_bytes()
    assert (report.notes, report.target_bytes_read) == ((), 0)
    assert 0 < report.bytes_changed < SIZE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, which can be made larger."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_block_whose_write_failed_is_not_taken_for_written(
    tmp_path: Path, image: Image, small_disk: Path, installed: Local
) -> None:
    source, target = image("source", SIZE), small_disk / "target"
    request = PassRequest(source=source, target=target, digests=tmp_path / "digests")
    with pytest.raises(Failed, match="No space left"):
        remote.run(request, far="source", transport=installed)
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    report = remote.run(request, far="source", transport=installed)
    assert target.read_bytes() == source.read_bytes()
    # What was written before is known.
    assert report.notes == ()
    assert 8 * MIB <= report.bytes_changed < SIZE


@both_ways
def test_memory_is_bound_by_the_digests_at_either_end(tmp_path: Path, far: Role) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    size = 16 * 2**30
    with source.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(os.urandom(128 * MIB))
    # Each end notes its own peak when it is over.
    peaks = tmp_path / "peaks"
    note = (
        f"open({str(peaks)!r}, 'a').write("
        "open('/proc/self/status').read().split('VmHWM:')[1].split()[0] + ' ')"
    )
    near = (
        f"import sys; sys.path.insert(0, {str(Path(local_transport.__file__).parent)!r});"
        "from pathlib import Path; from blocksync import remote;"
        "from blocksync.passes import PassRequest; from local_transport import Local;"
        "source, target, digests = map(Path, sys.argv[1:4]);"
        "request = PassRequest(source=source, target=target, digests=digests);"
        "remote.run(request, far=sys.argv[4], transport=Local(prefix=(sys.executable, '-c', sys.argv[5])));"
        + note
    )
    agent = f"import sys; from blocksync.agent.installed import main; code = main(); {note}; sys.exit(code)"
    subprocess.run([sys.executable, "-c", near, source, target, tmp_path / "digests", far, agent], check=True)
    found = [int(peak) * 1024 for peak in peaks.read_text().split()]
    assert len(found) == 2
    assert max(found) < 200e6 + 16 * (size // 65536)
