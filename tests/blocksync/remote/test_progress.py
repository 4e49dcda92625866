"""How far a pass is, seen by a program while it runs: between this host and one behind a real sshd."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from sshd import ALIAS, Server, make_keys, start, stop

from blocksync import remote
from blocksync.passes import PassRequest
from blocksync.progress import Progress
from blocksync.remote import PassPart
from local_transport import Local

MIB = 2**20
SIZE = 12 * MIB
RATE = "5MiB"
BESIDE_PYTHON = Path(sys.executable).parent

Image = Callable[[str, int], Path]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def with_blocksync(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Server]:
    path = f"PATH={BESIDE_PYTHON}:/usr/sbin:/usr/bin:/sbin:/bin"
    server = start(tmp_path_factory.mktemp("sshd"), keys, environment=path)
    yield server
    stop(server)


@pytest.fixture(scope="module")
def without_blocksync(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("sshd"), keys, environment="PATH=/usr/sbin:/usr/bin:/sbin:/bin")
    yield server
    stop(server)


@dataclass(frozen=True)
class Line:
    """A line of progress, and the seconds since the command was started when it came."""

    came: float
    fields: dict[str, object]

    def count(self, name: str) -> int:
        value = self.fields[name]
        assert isinstance(value, int)
        return value


def lines(*words: object) -> list[Line]:
    """What `blocksync --log-json` says while it does something."""
    began = time.monotonic()
    argv = [BESIDE_PYTHON / "blocksync", *map(str, words), "--log-json"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    found = [Line(time.monotonic() - began, json.loads(line)) for line in process.stderr]
    assert process.wait() == 0
    return found


def longest_stand(found: list[Line]) -> float:
    """The longest time in which the count of what was looked at stood still."""
    moved = [found[0].came]
    for earlier, later in pairwise(found):
        if later.count("bytes_looked_at") > earlier.count("bytes_looked_at"):
            moved.append(later.came)
    return max((later - earlier for earlier, later in pairwise(moved)), default=0.0)


def check(found: list[Line], size: int = SIZE) -> None:
    assert found[0].came < 2
    passes = [line for line in found if line.fields["event"] == "progress"]
    looked_at = [line.count("bytes_looked_at") for line in passes]
    assert looked_at == sorted(looked_at)
    assert (looked_at[-1], passes[-1].count("bytes_done")) == (size, size)
    assert longest_stand(passes) < 2
    # It is seen on its way, with a time to go.
    on_the_way = [line for line in passes if 0 < line.count("bytes_looked_at") < size]
    assert len(on_the_way) >= 2
    assert any(line.fields["eta"] for line in on_the_way)
    assert all(line.count("bytes_done") <= line.count("bytes_looked_at") for line in passes)


def url(server: Server, path: Path) -> str:
    return f"ssh://{ALIAS}{path}"


def test_a_copy_on_this_host_moves_from_the_start(image: Image, tmp_path: Path) -> None:
    check(lines("sync", image("source", SIZE), tmp_path / "target", "--bwlimit", "10MiB"))


@pytest.mark.parametrize("far", ["source", "target"])
def test_a_copy_over_ssh_moves_from_the_start(
    with_blocksync: Server, image: Image, tmp_path: Path, far: str
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    ends = (url(with_blocksync, source), target) if far == "source" else (source, url(with_blocksync, target))
    check(lines("sync", *ends, "--bwlimit", RATE, "--ssh-config", with_blocksync.config))


@pytest.mark.parametrize("far", ["source", "target"])
def test_a_copy_with_the_portable_agent_moves_from_the_start(
    without_blocksync: Server, image: Image, tmp_path: Path, far: str
) -> None:
    server, source, target = without_blocksync, image("source", SIZE), tmp_path / "target"
    # That agent makes no files.
    target.write_bytes(bytes(SIZE))
    ends = (url(server, source), target) if far == "source" else (source, url(server, target))
    check(lines("sync", *ends, "--bwlimit", RATE, "--ssh-config", server.config))


def test_several_volumes_move_each_for_itself(installed: Local, image: Image, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(2 * SIZE))
    seen: dict[int, list[Progress]] = {0: [], 1: []}
    parts = [
        PassPart(
            PassRequest(
                source=image(f"source {number}", SIZE),
                target=target,
                target_offset=number * SIZE,
                size=SIZE,
                bytes_per_second=10 * MIB,
            ),
            seen[number].append,
        )
        for number in seen
    ]
    remote.run_several(parts, transport=installed)
    for moments in seen.values():
        looked_at = [moment.bytes_looked_at for moment in moments]
        assert looked_at == sorted(looked_at)
        assert len({count for count in looked_at if 0 < count < SIZE}) >= 4
        assert moments[-1].bytes_moved >= SIZE
        assert moments[-1].is_over


def test_a_verify_over_ssh_ends_with_everything_looked_at(
    with_blocksync: Server, image: Image, tmp_path: Path
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    target.write_bytes(source.read_bytes()[:-1] + b"?")
    config = ("--ssh-config", with_blocksync.config)
    argv = ["verify", url(with_blocksync, source), target, "--log-json", *config]
    argv = [BESIDE_PYTHON / "blocksync", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 4
    # Nothing is written, so that nothing waits for a flush.
    assert last["bytes_looked_at"] == last["bytes_done"] == SIZE
