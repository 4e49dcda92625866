"""`make bench-remote` on a small image: two real ends and a link are measured, nothing is left of them."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from patience import wait_for

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    # ssh's control sockets, whose names must be short, are in there too.
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        folder = Path(root) / "images"
        folder.mkdir()
        yield folder


def bench(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start it, with its images in `folder`."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.remote", "--size", "8MiB", "--rounds", "1"),
            *("--folder", folder, "--output", folder.parent / "results", *options),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        text=True,
        stderr=subprocess.PIPE,
    )


def processes(folder: Path) -> list[str]:
    """The command lines that name the folder."""
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return [line.decode() for line in lines if bytes(folder) in line]


def namespaces(pid: int) -> list[str]:
    listed = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split() if name.endswith(f"-{pid}")]


def test_passes_and_the_link_are_measured_beside_peers(folder: Path) -> None:
    run = bench(folder, "--only", "one_percent_dirty", "--only", "link")
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said
    pages = {name: (folder.parent / "results" / f"{name}.md").read_text() for name in ("remote", "link")}
    for row in ("| blocksync, openssh |", "| blocksync, tls |", "| rsync |", "| bdsync | missing |"):
        assert row in pages["remote"]
    assert "## First full copy of incompressible bytes over 100 Mbit/s, 20 ms" in pages["link"]
    assert not any(str(folder) in page for page in pages.values())
    assert list(folder.iterdir()) == []
    assert processes(folder) == []
    assert namespaces(run.pid) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing_behind(folder: Path, number: signal.Signals) -> None:
    run = bench(folder, "--only", "link")
    wait_for(lambda: any("--transport" in line for line in processes(folder)), 60)
    assert len(namespaces(run.pid)) == 2
    run.send_signal(number)
    run.communicate(timeout=60)
    assert run.returncode != 0
    wait_for(lambda: processes(folder) == [] and namespaces(run.pid) == [], 20)
    assert list(folder.iterdir()) == []
