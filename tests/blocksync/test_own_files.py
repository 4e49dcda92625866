"""Files that this program writes: nothing of somebody else's is opened, followed or replaced."""

import os
import stat
from pathlib import Path

import pytest

from blocksync import own_files
from blocksync.errors import Refused, Usage


def _device(path: Path, kind: int) -> None:
    # A stand-in for /dev/null, never the machine's own.
    os.mknod(path, kind | 0o666, os.makedev(1, 3) if kind == stat.S_IFCHR else os.makedev(7, 200))


@pytest.fixture(params=["pipe", "folder", "link", "dangling link", "character device", "block device"])
def not_a_file(request, tmp_path) -> Path:
    path, other = tmp_path / "place", tmp_path / "precious"
    other.write_bytes(b"precious")
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(other)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "character device":
            _device(path, stat.S_IFCHR)
        case "block device":
            _device(path, stat.S_IFBLK)
    return path


def test_what_is_not_a_regular_file_is_refused_and_stays(not_a_file):
    before = not_a_file.lstat()
    with pytest.raises(Usage):
        own_files.require_regular(not_a_file, "a plan")
    with pytest.raises(Usage):
        own_files.replace(not_a_file, b"ours", "a plan")
    after = not_a_file.lstat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert (not_a_file.parent / "precious").read_bytes() == b"precious"


def test_a_file_is_replaced_as_a_whole_and_is_its_owner_s_alone(tmp_path):
    path = tmp_path / "state.json"
    own_files.replace(path, b"one", "a state")
    own_files.replace(path, b"two", "a state")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_opening_follows_no_link_and_waits_for_nobody(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Usage, match="symbolic"), own_files.opened(tmp_path / "link", os.O_RDONLY, "a lock"):
        pass
    with pytest.raises(Usage), own_files.opened(tmp_path / "pipe", os.O_RDONLY, "a lock"):
        pass


@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o775, 0), (0o755, 65534)])
def test_a_folder_in_which_another_user_can_exchange_files_is_refused(tmp_path, mode, owner):
    folder = tmp_path / "theirs" / "ours"
    folder.mkdir(parents=True)
    os.chown(folder.parent, owner, 12345)
    folder.parent.chmod(mode)
    with pytest.raises(Refused) as refused:
        own_files.require_safe_way(folder, "a job")
    assert refused.value.guard == "folder"
    assert str(folder.parent) in str(refused.value)


def test_a_folder_of_root_s_in_a_sticky_one_is_safe(tmp_path):
    folder = tmp_path / "sticky" / "ours"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o1777)
    own_files.require_safe_way(folder, "a job")
