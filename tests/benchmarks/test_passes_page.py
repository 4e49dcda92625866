"""`make bench` on a small image: what is there is measured, what is missing is listed, nothing is left."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WANTED = ("bash", "blkid", "cmp", "dd", "findmnt", "qemu-img", "sync")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH, with a few programs and none of the other peers."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in WANTED:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


def bench(programs: Path, folder: Path, *options: str) -> Path:
    """Run it, with its images in `folder`; the folder of the results."""
    output = folder.parent / "results"
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.passes", "--size", "32MiB", "--rounds", "2"),
            *("--folder", folder, "--output", output, *options),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": str(programs)},
        check=True,
        capture_output=True,
    )
    return output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def test_peers_that_are_missing_are_listed_as_missing(programs: Path, folder: Path) -> None:
    output = bench(programs, folder, "--only", "unchanged_with_digests")
    page = (output / "passes.md").read_text()
    for peer in ("rsync", "bdsync", "blocksync-fast"):
        assert f"| {peer} | missing |" in page
    assert "not measured: blocksync-fast missing" in page
    raw = json.loads((output / "passes.json").read_text())
    seconds = raw["seconds"]["Nothing changed, digest file present"]
    assert {name: len(found) for name, found in seconds.items() if found} == {
        "blocksync": 2,
        "dd to /dev/null": 2,
    }
    assert "<svg" in (output / "passes.svg").read_text()


def test_dirty_passes_and_full_copies_are_measured_and_the_images_removed(
    programs: Path, folder: Path
) -> None:
    output = bench(programs, folder, "--only", "one_percent_dirty", "--only", "new_sparse_file")
    page = (output / "passes.md").read_text()
    assert (
        "| First full copy to a new sparse file | zero blocks become holes and cost no writes | met |" in page
    )
    assert "bytes differ, in " in page
    assert list(folder.iterdir()) == []


def test_a_page_tells_no_path(programs: Path, folder: Path) -> None:
    output = bench(programs, folder, "--only", "unchanged_without_digests")
    for name in ("passes.md", "passes.json", "passes.svg"):
        assert str(folder) not in (output / name).read_text()
