"""Root's programs are found where cron and `su` leave PATH without their folders."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.errors import Failed
from blocksync.hosts import programs
from blocksync.passes import PassRequest

BLOCKSYNC = Path(sys.executable).parent / "blocksync"
OF_CRON = "/usr/bin:/bin"
Image = Callable[[str, int], Path]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH without a program in it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", [OF_CRON, "/nowhere", ""])
def test_a_pass_works_with_the_path_of_cron(image: Image, tmp_path: Path, path: str) -> None:
    source, target = image("source", 2**20), image("target", 2**20)
    argv = [BLOCKSYNC, "sync", source, target]
    done = subprocess.run(argv, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", ["blkid", "losetup", "mkswap", "debugfs", "blockdev"])
def test_programs_of_root_are_found_besides_path(bare: Path, name: str) -> None:
    assert Path(programs.find(name)).name == name


def test_what_path_has_comes_first(bare: Path) -> None:
    (bare / "blkid").write_text("#!/bin/sh\n")
    (bare / "blkid").chmod(0o755)
    assert programs.find("blkid") == str(bare / "blkid")


def test_what_is_nowhere_is_told_with_its_package(
    image: Image, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "BESIDES", (str(bare / "sbin"),))
    with pytest.raises(Failed, match=r"PATH.*sbin") as caught:
        passes.run(PassRequest(source=image("source", 4096), target=image("target", 4096)))
    assert "util-linux" in caught.value.way_out


def test_a_program_that_is_found_finds_others_likewise(bare: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", "command -v losetup"], env=programs.environment(), capture_output=True, check=False
    )
    assert done.returncode == 0
