"""What a volume holds."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrate.guest.unmounted import Unmounted
from orchestrate.hosts import ThisHost
from orchestrate.volumes import Signature, probe

OLD, NEW = "11111111-2222-3333-4444-555555555555", "99999999-8888-7777-6666-555555555555"


@pytest.fixture
def volume(tmp_path: Path, loop: Callable[..., Path]) -> Iterator[tuple[Path, Path]]:
    """A volume's device and its bytes underneath. As by Xen's backend, it is held open: what is cached of it
    stays.
    """
    image = tmp_path / "volume.img"
    with image.open("wb") as file:
        file.truncate(8 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-U", OLD, image], check=True)
    device = loop(image)
    with device.open("rb"):
        yield device, image


def test_an_identity_that_the_guest_changed_is_seen_though_it_was_looked_at_before(volume):
    device, underneath = volume
    assert probe(ThisHost(), device).uuid == OLD
    subprocess.run(["tune2fs", "-U", NEW, underneath], check=True, capture_output=True, input=b"y\n")
    assert probe(ThisHost(), device) == Signature(filesystem="ext4", uuid=NEW)


def test_files_that_the_guest_made_are_seen_once_the_volume_is_probed(volume):
    device, underneath = volume
    assert "made" not in Unmounted(ThisHost(), {"/": device}).names("/")
    subprocess.run(["debugfs", "-w", "-R", "mkdir made", underneath], check=True, capture_output=True)
    probe(ThisHost(), device)
    assert "made" in Unmounted(ThisHost(), {"/": device}).names("/")
