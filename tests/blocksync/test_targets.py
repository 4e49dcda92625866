"""A target is what was guarded, whoever exchanges names meanwhile; and nobody can who should not."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.devices import device as devices
from blocksync.devices import target as targets
from blocksync.errors import Refused
from blocksync.passes import PassRequest

MIB = 2**20
NOBODY = 65534
Image = Callable[[str, int], Path]
Attach = Callable[..., Path]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of another user's."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    return folder


def refused(source: Path, target: Path, **options: object) -> Refused:
    with pytest.raises(Refused) as caught:
        passes.run(PassRequest(source=source, target=target, **options))  # type: ignore[arg-type]
    assert caught.value.guard == "folder"
    return caught.value


@pytest.mark.parametrize("there", [True, False], ids=["there", "yet to be made"])
def test_a_target_file_in_another_user_s_folder_is_refused(image: Image, theirs: Path, there: bool) -> None:
    source, target = image("source", MIB), theirs / "target"
    if there:
        target.write_bytes(bytes(MIB))
    assert "--override folder" in refused(source, target).way_out
    assert target.exists() == there
    passes.run(PassRequest(source=source, target=target, overrides=frozenset({"folder"})))
    assert target.read_bytes() == source.read_bytes()


def test_a_link_that_another_user_can_turn_elsewhere_leads_to_no_target(
    image: Image, loop: Attach, theirs: Path, tmp_path: Path
) -> None:
    source, device = image("source", MIB), loop(image("backing", MIB))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/vm.img").write_bytes(bytes(MIB))
    for name, place in (
        ("file", tmp_path / "images/vm.img"),
        ("device", device),
        ("..", tmp_path / "images"),
    ):
        link = theirs / f"to {name}"
        link.symlink_to(place)
        refused(source, link / "image" if name == ".." else link)
    # By way of a link of root's as well.
    (tmp_path / "mine").symlink_to(theirs / "to device")
    refused(source, tmp_path / "mine")
    assert (tmp_path / "images/vm.img").read_bytes() == bytes(MIB)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_in_a_folder_of_everybody_only_what_is_ours_is_a_target(
    image: Image, tmp_path: Path, mode: int
) -> None:
    source, folder = image("source", MIB), tmp_path / "everybody's"
    folder.mkdir()
    folder.chmod(mode)
    (folder / "his").write_bytes(bytes(MIB))
    os.chown(folder / "his", NOBODY, NOBODY)
    refused(source, folder / "his")
    if mode == 0o1777:
        passes.run(PassRequest(source=source, target=folder / "ours"))
        passes.run(PassRequest(source=source, target=folder / "ours"))
    else:
        refused(source, folder / "ours")


def test_small_writes_are_kept_from_another_user_s_folder(theirs: Path) -> None:
    (theirs / "target").write_bytes(bytes(MIB))
    with pytest.raises(Refused) as caught:
        targets.write_ranges(theirs / "target", [(0, b"x")])
    assert caught.value.guard == "folder"
    assert (theirs / "target").read_bytes() == bytes(MIB)


def test_an_image_of_the_hypervisor_s_user_in_a_folder_of_root_s_is_a_target(
    image: Image, tmp_path: Path
) -> None:
    """As in /var/lib/libvirt/images, whose images belong to whoever runs QEMU."""
    images = tmp_path / "images"
    images.mkdir(mode=0o711)
    (images / "vm.img").write_bytes(bytes(MIB))
    os.chown(images / "vm.img", NOBODY, NOBODY)
    source = image("source", MIB)
    passes.run(PassRequest(source=source, target=images / "vm.img"))
    assert (images / "vm.img").read_bytes() == source.read_bytes()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of a user without rights."""
    folder = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def as_nobody(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_user_copies_in_his_own_home(home: Path) -> None:
    code = "import sys; from blocksync.commands.entry import main; main()"
    argv = [sys.executable, "-c", code, "sync", "source", "target", "--digests", "digests"]
    try:
        reads = as_nobody([sys.executable, "-c", "import blocksync"], home).returncode == 0
    except PermissionError:
        reads = False
    if not reads:
        pytest.skip("nobody cannot read this checkout, or its Python")
    (home / "source").write_bytes(os.urandom(MIB))
    (home / "source").chmod(0o644)
    done = as_nobody(argv, home)
    assert done.returncode == 0, done.stderr
    assert (home / "target").read_bytes() == (home / "source").read_bytes()


def test_a_new_target_that_is_exchanged_while_it_is_made_is_not_written(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, other = image("source", MIB), tmp_path / "target", tmp_path / "precious"
    other.write_bytes(bytes(MIB))
    link = os.link

    def exchanged(*names: object, **options: object) -> None:
        link(*names, **options)  # type: ignore[arg-type]
        other.rename(target)

    with monkeypatch.context() as patch, pytest.raises(Refused) as caught:
        patch.setattr(os, "link", exchanged)
        passes.run(PassRequest(source=source, target=target))
    assert caught.value.guard == "changed"
    assert target.read_bytes() == bytes(MIB)


def test_a_new_target_has_a_name_that_nobody_can_lie_in_wait_for(image: Image, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / ".target.new").hardlink_to(precious)
    passes.run(PassRequest(source=image("source", MIB), target=tmp_path / "target"))
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / ".target.new").samefile(precious)


def test_the_tail_goes_to_the_file_that_was_guarded(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, other = image("source", MIB + 98), image("target", MIB + 98), tmp_path / "other"
    other.write_bytes(bytes(MIB + 98))
    held = tmp_path / "held"
    held.hardlink_to(target)
    flock = fcntl.flock

    def exchanged(fd: int, operation: int) -> None:
        flock(fd, operation)
        other.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", exchanged)
        passes.run(PassRequest(source=source, target=target, direct=True))
    assert target.read_bytes() == bytes(MIB + 98)
    assert held.read_bytes() == source.read_bytes()


def test_what_is_made_is_measured_itself(tmp_path: Path) -> None:
    made = targets.create_sparse(tmp_path / "target", MIB)
    assert made == devices.measure(tmp_path / "target")
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]
