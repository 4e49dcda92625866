"""What a volume holds."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from blocksync.errors import Refused
from blocksync.hosts.host import MOST_BYTES, Completed, ThisHost
from orchestrate.guest.files.unmounted import Unmounted
from orchestrate.guest.volumes import VolumeContent, probe

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
    assert probe(ThisHost(), device) == VolumeContent(filesystem="ext4", uuid=NEW)


def test_files_that_the_guest_made_are_seen_once_the_volume_is_probed(volume):
    device, underneath = volume
    assert "made" not in Unmounted(ThisHost(), {"/": device}).names("/")
    subprocess.run(["debugfs", "-w", "-R", "mkdir made", underneath], check=True, capture_output=True)
    probe(ThisHost(), device)
    assert "made" in Unmounted(ThisHost(), {"/": device}).names("/")


class Lying(ThisHost):
    """A host whose blkid says what it likes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        return Completed(0, self.answer if argv[0] == "blkid" else b"", "")


@pytest.mark.parametrize(
    "answer",
    [
        b"UUID=x;insmod\\${evil}{\nTYPE=ext4\n",
        b"UUID=$(reboot)\nTYPE=xfs\n",
        b"UUID=1234-ABCD\nTYPE=ext4\n",
        b"UUID=12345678\nTYPE=vfat\n",
        b"UUID=-x\nTYPE=iso9660\n",
        b"UUID=a b\nTYPE=LVM2_member\n",
        b"UUID=" + b"a" * 100 + b"\nTYPE=udf\n",
        b"UUID=" + NEW.encode() + b"\nUUID=" + OLD.encode() + b"\nTYPE=ext4\n",
        b"TYPE=ext4;reboot\n",
        b"TYPE=\x1b[2J\n",
        b"TYPE=ext4\nLABEL=\x1b]0;PWNED\x07\n",
        b"TYPE=ext4\nLABEL=" + b"x" * 10_000 + b"\n",
        b"TYPE=ext4\nno key\n",
    ],
)
def test_an_identity_that_no_file_system_has_is_refused(answer):
    with pytest.raises(Refused) as refused:
        probe(Lying(answer), Path("/dev/vg0/x"))
    assert refused.value.guard == "signature"
    assert str(refused.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("filesystem", "uuid"),
    [
        ("ext4", OLD),
        ("xfs", OLD.upper()),
        ("vfat", "1234-ABCD"),
        ("ntfs", "0123456789ABCDEF"),
        ("iso9660", "2024-01-01-00-00-00-00"),
        ("LVM2_member", "3YjmHd-Vh8A-kQeL-xxyz-0123-4567-abcdef"),
        ("linux_raid_member", OLD),
    ],
)
def test_what_blkid_prints_for_each_kind_is_taken(filesystem, uuid):
    answer = f"DEVNAME=/dev/x\nUUID={uuid}\nTYPE={filesystem}\nLABEL=My\\ \\$disk\\'s\n"
    assert probe(Lying(answer.encode()), Path("/x")) == VolumeContent(
        filesystem=filesystem, uuid=uuid, label="My $disk's"
    )


@pytest.mark.parametrize("label", ["a\nUUID=x", "a\nPTTYPE", "\x1b[2J"])
def test_a_label_of_a_guest_says_nothing_but_itself(volume, label):
    device, underneath = volume
    subprocess.run(["tune2fs", "-L", label, underneath], check=True, capture_output=True)
    found = probe(ThisHost(), device)
    assert found.label is not None
    assert found.label.isprintable()
    assert (found.filesystem, found.uuid, found.table) == ("ext4", OLD, None)
