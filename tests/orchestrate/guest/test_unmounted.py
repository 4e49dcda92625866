"""Reading a guest's volumes without mounting them."""

import hashlib
import itertools
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import bounded
from blocksync.errors import Failed
from blocksync.hosts.host import MISSING, MOST_BYTES, Completed, ThisHost
from orchestrate.guest.files.unmounted import Unmounted


class WithoutGrub(ThisHost):
    """A Xen host of old: e2fsprogs, no grub-fstest."""

    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        return Completed(MISSING, b"", "") if argv[0] == "grub-fstest" else super().run(argv, most=most)


HOSTS = {"grub-fstest": ThisHost(), "debugfs": WithoutGrub()}


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["plain", "with space, comma (and) =signs"])
def volumes(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Path]:
    folder = tmp_path / request.param
    folder.mkdir()
    root, srv = folder / "root.img", folder / "srv.img"
    _ext4(root, tmp_path / "root", {"etc/fstab": "fstab\n", "boot/vmlinuz-1": "", "srv/hidden": "below\n"})
    _ext4(srv, tmp_path / "srv", {"data": "served\n"})
    return {"/": root, "/srv": srv}


def _ext4(image: Path, tree: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tree / "link").symlink_to("/etc/fstab")
    (tree / "folder").symlink_to("etc")
    (tree / "round").symlink_to("round")
    image.touch()
    subprocess.run(["truncate", "-s", "16M", str(image)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-d", str(tree), str(image)], check=True)


def test_files_and_folders_are_read_from_the_volume_that_is_mounted_there(volumes, host):
    guest = Unmounted(HOSTS[host], volumes)
    assert guest.read("/etc/fstab") == b"fstab\n"
    assert guest.read("/srv/data") == b"served\n"
    assert guest.names("/boot") == ("vmlinuz-1",)
    assert "hidden" not in guest.names("/srv")


def test_links_lead_to_what_they_name_inside_the_volume(volumes, host):
    guest = Unmounted(HOSTS[host], volumes)
    assert guest.read("/link") == b"fstab\n"
    assert guest.read("/folder/fstab") == b"fstab\n"
    assert guest.read("/round") is None


def test_an_empty_file_is_not_an_absent_one(volumes, host):
    guest = Unmounted(HOSTS[host], volumes)
    assert guest.read("/boot/vmlinuz-1") == b""
    assert guest.read("/boot/none") is None
    assert guest.read("/none/none") is None
    assert guest.read("/boot") is None
    assert guest.names("/none") == ()


def test_reading_writes_nothing(volumes, host):
    before = hashlib.sha256(volumes["/"].read_bytes()).hexdigest()
    Unmounted(HOSTS[host], volumes).read("/etc/fstab")
    assert hashlib.sha256(volumes["/"].read_bytes()).hexdigest() == before


def test_a_file_system_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path, host):
    volume = tmp_path / "volume.img"
    volume.write_bytes(bytes(2**20))
    with pytest.raises(Failed, match="its file system cannot be read"):
        Unmounted(HOSTS[host], {"/": volume}).names("/boot")


def test_an_empty_folder_is_one(volumes, host):
    subprocess.run(["debugfs", "-w", "-R", "mkdir empty", volumes["/"]], check=True, capture_output=True)
    assert Unmounted(HOSTS[host], volumes).names("/empty") == ()


def test_a_guest_that_runs_is_read_whatever_it_is_just_changing(volumes, host, loop, tmp_path):
    device = loop(volumes["/"])
    mountpoint = tmp_path / "guest"
    mountpoint.mkdir()
    subprocess.run(["mount", device, mountpoint], check=True)
    ended = threading.Event()
    writer = threading.Thread(target=write_until, args=(mountpoint, ended))
    writer.start()
    try:
        for _ in range(25):
            assert Unmounted(HOSTS[host], {"/": device}).names("/boot") == ("vmlinuz-1",)
    finally:
        ended.set()
        writer.join()
        subprocess.run(["umount", mountpoint], check=True)


def write_until(folder: Path, ended: threading.Event) -> None:
    """Make and remove files, some of them durably, so that the journal is ahead of the disk."""
    for number in itertools.count():
        if ended.is_set():
            return
        file = folder / f"file{number % 200}"
        with file.open("wb") as stream:
            stream.write(bytes(1000 * (number % 9)))
            if number % 5 == 0:
                os.fsync(stream.fileno())
        if number % 7 == 0:
            (folder / f"file{number * 3 % 200}").unlink(missing_ok=True)


_READ = """
import resource, sys
from pathlib import Path
from blocksync.errors import Failed
from orchestrate.guest.files.unmounted import Unmounted
from blocksync.hosts.host import MISSING, MOST_BYTES, Completed as Done, ThisHost

class WithoutGrub(ThisHost):
    def run(self, argv, *, most=MOST_BYTES):
        return Done(MISSING, b"", "") if argv[0] == "grub-fstest" else super().run(argv, most=most)

guest = Unmounted(WithoutGrub() if sys.argv[1] == "debugfs" else ThisHost(), {"/": Path(sys.argv[2])})
try:
    print(getattr(guest, sys.argv[4])(sys.argv[3]))
except Failed as error:
    print(error)
"""


@pytest.fixture(params=["ext3", "ext4"])
def sparse(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A small volume with files that say to be huge."""
    image, tree = tmp_path / "sparse.img", tmp_path / "sparse"
    (tree / "boot").mkdir(parents=True)
    for name in ("fstab", "boot/initrd"):
        with (tree / name).open("wb") as file:
            file.write(b"begins\n")
            file.truncate(1 << 40)
    (tree / "hole").touch()
    os.truncate(tree / "hole", 20 << 20)
    image.touch()
    os.truncate(image, 16 << 20)
    subprocess.run([f"mkfs.{request.param}", "-q", "-d", tree, image], check=True, capture_output=True)
    return image


@pytest.mark.parametrize(("path", "how"), [("/fstab", "read"), ("/hole", "read"), ("/boot/initrd", "image")])
def test_a_sparse_file_of_a_guest_costs_nothing_and_is_an_error(sparse, host, path, how):
    said = bounded.run(_READ, host, sparse, path, how, memory=1 << 30, seconds=30)
    assert "is larger than" in said or "cannot be read" in said


@pytest.fixture
def damaged(volumes: dict[str, Path]) -> Path:
    """The root with an fstab, and a folder /srv, whose blocks lie beyond the end of the volume."""
    for path in ("/etc/fstab", "/srv"):
        argv = ["debugfs", "-w", "-R", f"set_inode_field {path} block[5] 0x0fffffff", volumes["/"]]
        subprocess.run(argv, check=True, capture_output=True)
    return volumes["/"]


@pytest.mark.parametrize("path", ["/etc/fstab", "/link", "/folder/fstab", "/srv/hidden"])
def test_a_file_that_cannot_be_read_is_an_error_and_not_an_absent_one(damaged, host, path):
    with pytest.raises(Failed, match="cannot be read"):
        Unmounted(HOSTS[host], {"/": damaged}).read(path)


def test_a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_one(damaged, host):
    guest = Unmounted(HOSTS[host], {"/": damaged})
    with pytest.raises(Failed, match=r"/srv .*cannot be read"):
        guest.names("/srv")
    assert guest.names("/boot") == ("vmlinuz-1",)


def test_a_folder_of_which_a_part_cannot_be_read_is_an_error(tmp_path, host):
    tree, image = tmp_path / "tree", tmp_path / "many.img"
    (tree / "many").mkdir(parents=True)
    for number in range(200):
        (tree / "many" / f"a-name-that-fills-blocks-{number}").touch()
    image.touch()
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.ext3", "-q", "-b", "1024", "-d", tree, image], check=True, capture_output=True)
    spoil = ["debugfs", "-w", "-R", "set_inode_field /many block[3] 0x0fffffff", image]
    subprocess.run(spoil, check=True, capture_output=True)
    with pytest.raises(Failed, match="cannot be read"):
        Unmounted(HOSTS[host], {"/": image}).names("/many")


def test_debugfs_is_asked_about_names_with_blanks_and_quotes(tmp_path):
    names = ["Wired connection 1", 'the "one"', "b\udce4r", "tab", "#x", "a\\b"]
    _ext4(tmp_path / "odd.img", tmp_path / "odd", {f"etc/{name}": f"{name!a}" for name in names})
    guest = Unmounted(HOSTS["debugfs"], {"/": tmp_path / "odd.img"})
    assert set(names) <= set(guest.names("/etc"))
    assert [guest.read(f"/etc/{name}") for name in names] == [f"{name!a}".encode() for name in names]


def test_a_name_that_debugfs_cannot_be_asked_about_is_an_error_and_not_an_empty_file(tmp_path):
    _ext4(tmp_path / "odd.img", tmp_path / "odd", {"etc/a\tb": "content"})
    guest = Unmounted(HOSTS["debugfs"], {"/": tmp_path / "odd.img"})
    with pytest.raises(Failed, match="debugfs cannot be asked about such a name"):
        guest.read("/etc/a\tb")


def test_a_long_link_is_followed_as_a_short_one(tmp_path, host):
    name = "n" * 100
    _ext4(tmp_path / "long.img", tmp_path / "long", {name: "there"})
    link = ["debugfs", "-w", "-R", f"symlink far /{name}", tmp_path / "long.img"]
    subprocess.run(link, check=True, capture_output=True)
    assert Unmounted(HOSTS[host], {"/": tmp_path / "long.img"}).read("/far") == b"there"
