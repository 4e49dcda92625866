"""`blocksync changed` prints an extents file that `--only` reads, and refuses what makes no sense."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blocksync.changes.local import changed
from blocksync.errors import ExitCode, Usage
from blocksync.extents import Extents

BLOCKSYNC = Path(sys.executable).with_name("blocksync")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(10_000))
    return path


def ask(*words):
    return subprocess.run([BLOCKSYNC, "changed", *words], capture_output=True, text=True, check=False)


def test_without_a_list_everything_may_have_changed_and_it_says_so(image):
    told = ask(image)
    assert told.returncode == ExitCode.DONE
    assert "nothing is known" in told.stderr
    assert Extents.from_text(told.stdout).pairs() == [(0, 10_000)]


def test_an_extents_file_is_brought_into_order_and_clipped_to_the_volume(image, tmp_path):
    (tmp_path / "list").write_text("9000 5000\n0 100\n50 100\n20000 1\n")
    told = json.loads(ask(image, "--only", tmp_path / "list", "--json").stdout)
    assert told["extents"] == [[0, 150], [9000, 1000]]
    assert (told["size"], told["everything"]) == (10_000, False)


def test_what_it_prints_is_what_a_pass_takes(image, tmp_path):
    (tmp_path / "list").write_text(ask(image).stdout)
    target = tmp_path / "target"
    done = subprocess.run(
        [BLOCKSYNC, "sync", image, target, "--only", tmp_path / "list"], capture_output=True, check=False
    )
    assert done.returncode == ExitCode.DONE
    assert target.read_bytes() == image.read_bytes()


def test_a_missing_volume_is_a_mistake_of_usage(tmp_path):
    told = ask(tmp_path / "missing")
    assert told.returncode == ExitCode.USAGE
    assert "does not exist" in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(
    "path", ["/dev/sda", "vg0/-x", "/dev/vg0/a/b", "/dev/vg0/a;b", "/dev/mapper/control"]
)
def test_only_a_logical_volume_has_snapshots(path):
    with pytest.raises(Usage, match=r"logical volume|mapper"):
        changed(Path(path), snapshot="/dev/vg0/snap")


def test_a_snapshot_and_an_extents_file_exclude_each_other(image):
    with pytest.raises(Usage, match="exclude each other"):
        changed(image, snapshot="/dev/vg0/snap", only=image)
