"""An extents file is a regular file of text; what is named by a slip ends in an error, not in a wait."""

import os
from pathlib import Path

import pytest

from blocksync.errors import Usage
from blocksync.extents import Extents


def test_a_pipe_that_nobody_writes_to_is_no_extents_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Usage, match="regular file"):
        Extents.read(tmp_path / "pipe")


@pytest.mark.parametrize("number", [(1, 5), (240, 77)])
def test_a_device_is_no_extents_file(tmp_path: Path, number: tuple[int, int]) -> None:
    os.mknod(tmp_path / "node", (0o20600 if number[0] == 1 else 0o60600), os.makedev(*number))
    with pytest.raises(Usage):
        Extents.read(tmp_path / "node")


def test_an_image_larger_than_any_memory_is_seen_to_be_no_text(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    os.truncate(tmp_path / "image", 2**42)
    with pytest.raises(Usage, match="no text file"):
        Extents.read(tmp_path / "image")


def test_a_link_to_an_extents_file_serves(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("0 4096\n")
    (tmp_path / "link").symlink_to(tmp_path / "list")
    assert Extents.read(tmp_path / "link").pairs() == [(0, 4096)]
