"""Reading a guest's volumes without mounting them."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrate.guest.unmounted import Unmounted
from orchestrate.hosts import MISSING, Done, ThisHost


class WithoutGrub(ThisHost):
    """A Xen host of old: e2fsprogs, no grub-fstest."""

    def run(self, argv: Sequence[str]) -> Done:
        return Done(MISSING, b"", "") if argv[0] == "grub-fstest" else super().run(argv)


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
