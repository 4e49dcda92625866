"""The first pass is made onto an empty target alone, and never onto another guest's disk."""

import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from test_refusals import REFUSED, USAGE, assert_one_error, nothing_written

MIB = 2**20
DOMAIN = """
<node>
  <cpu><mhz>6000</mhz><model>i686</model><active>2</active><nodes>1</nodes><sockets>1</sockets>
  <cores>2</cores><threads>1</threads></cpu><memory>3145728</memory>
  <domain type="test">
    <name>{name}</name><uuid>6f6f2c3e-31a4-4e5f-8a5e-222222222222</uuid><memory>64</memory><os><type>hvm</type></os>
    <devices><disk type="file"><source file="{disk}"/><target dev="vda"/></disk></devices>
  </domain>
</node>
"""


def disk_size(guest) -> int:
    return int(guest.plan.read_text().split("size = ")[1].split()[0])


def put(guest, offset: int, data: bytes) -> None:
    """A target of the planned size that is empty but for some bytes."""
    with guest.target.open("wb") as target:
        target.truncate(disk_size(guest))
        target.seek(offset)
        target.write(data)


@pytest.mark.parametrize(("offset", "block"), [(4096, False), (45 * MIB + 3, False), (-MIB - 1, True)])
def test_one_byte_where_a_pass_would_write_makes_a_target_somebody_s(planned_guest, loop, offset, block):
    put(planned_guest, offset % disk_size(planned_guest), b"\1")
    if block:
        device = loop(planned_guest.target)
        text = planned_guest.plan.read_text().replace(f'"{planned_guest.target}"', f'"{device}"')
        planned_guest.plan.write_text(text)
    with nothing_written(planned_guest.folder):
        done = planned_guest.step("sync")
        assert_one_error(done, REFUSED, "holds data at byte", "--override not-empty")


def test_an_archive_is_no_target(planned_guest):
    content = planned_guest.folder / "content"
    content.write_bytes(random.Random(1).randbytes(2 * MIB))
    with tarfile.open(planned_guest.target, "w") as archive:
        archive.add(content, "content")
    with planned_guest.target.open("r+b") as target:
        target.truncate(disk_size(planned_guest))
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, "carries tar")


def test_an_image_of_another_format_is_no_target(planned_guest):
    size = disk_size(planned_guest)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(planned_guest.target), str(size)]
    subprocess.run(argv, check=True)
    with planned_guest.target.open("r+b") as target:
        target.truncate(size)
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, "carries qcow2")


def test_data_that_the_operator_gives_up_is_overwritten_by_his_word(planned_guest):
    put(planned_guest, 9 * MIB, b"left by a logical volume that is gone")
    planned_guest.result("sync", "--override=not-empty")
    assert planned_guest.step("sync").returncode == 0, "what is there now is ours"


def test_a_first_pass_that_was_killed_goes_on(planned_guest):
    """The table is there, and some data; no digest file was committed."""
    planned_guest.result("sync")
    for name in ("state.json", "xvda2.digests", "xvda3.digests"):
        (planned_guest.folder / "job" / name).unlink(missing_ok=True)
    assert planned_guest.step("sync").returncode == 0


def test_what_is_no_guard_is_told_before_anything_is_written(planned_guest):
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync", "--override=nonsense"), USAGE, "nonsense")
    assert not planned_guest.target.exists()


@pytest.fixture
def defined(planned_guest, monkeypatch):
    """libvirt's own test driver, with one domain whose disk is the target."""

    def define(name: str, disk: Path) -> None:
        description = planned_guest.folder.parent / f"node-{planned_guest.folder.name}.xml"
        description.write_text(DOMAIN.format(name=name, disk=disk))
        monkeypatch.setenv("LIBVIRT_DEFAULT_URI", f"test://{description}")

    return define


@pytest.mark.parametrize("name", ["target.raw", "hard link.raw"])
def test_the_disk_of_another_domain_is_no_target_whatever_its_state(planned_guest, defined, name):
    put(planned_guest, 0, b"")
    disk = planned_guest.folder / name
    if name == "hard link.raw":
        disk.hardlink_to(planned_guest.target)
    defined("precious", disk)
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, "domain precious", "--override domain")
    planned_guest.result("sync", "--override=domain")


def test_the_guest_s_own_domain_and_others_disks_are_no_reason(planned_guest, defined):
    put(planned_guest, 0, b"")
    defined("other", planned_guest.folder / "other.raw")
    assert planned_guest.step("sync").returncode == 0
    guest = planned_guest.plan.read_text().split('name = "')[1].split('"')[0]
    defined(guest, planned_guest.target)
    assert planned_guest.step("sync").returncode == 0


def test_where_there_is_no_daemon_nothing_is_asked(planned_guest, monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu+unix:///system?socket=/nowhere")
    assert planned_guest.step("sync").returncode == 0


def test_a_target_in_another_user_s_folder_is_not_made(planned_guest):
    theirs = planned_guest.folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    text = planned_guest.plan.read_text()
    planned_guest.plan.write_text(text.replace(f'"{planned_guest.target}"', f'"{theirs}/target.raw"'))
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, str(theirs), "--override folder")
    assert list(theirs.iterdir()) == []
