"""Bad input: one clear error with the thing, the cause and the hint; the right code; nothing written."""

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USAGE, REFUSED = 2, 3


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its content, but for the job's lock, its log and its last command."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"lock", "log", "job.json"}
    }


@contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    before = snapshot(folder)
    yield
    assert snapshot(folder) == before


def assert_one_error(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert "hint:" in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_missing_volume(small_guest):
    small_guest.volumes["xvda3"].unlink()
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), USAGE, "xvda3.img", "--volume")


def test_a_configuration_with_python_in_it_is_never_run(small_guest):
    witness = small_guest.folder / "witness"
    small_guest.config.write_text(f"import os\nos.mknod('{witness}')\n" + small_guest.config.read_text())
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), USAGE, "guest.cfg:1:1", "xl list -l")


def test_a_volume_with_an_unknown_file_system(small_guest):
    small_guest.volumes["xvda3"].write_bytes(b"\xa5" * 2**20)
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), REFUSED, "xvda3", "--override unknown-filesystem")


def test_a_volume_that_is_a_whole_disk(small_guest):
    subprocess.run(
        ["sfdisk", "-q", str(small_guest.volumes["xvda3"])], input="2048,,L\n", text=True, check=True
    )
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), REFUSED, "partition table", "blocksync sync")


def test_a_guest_without_a_kernel(small_guest):
    image = small_guest.volumes["xvda2"]
    subprocess.run(["debugfs", "-w", "-R", "rm /boot/vmlinuz-6.1.0-9-amd64", str(image)], check=True)
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), REFUSED, "no kernel", "apt-get install linux-image")


def test_a_target_that_is_one_of_the_guests_volumes(small_guest):
    small_guest.target.symlink_to(small_guest.volumes["xvda3"])
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), REFUSED, "the guest's own volume xvda3")


def test_a_target_that_is_too_small(small_guest):
    small_guest.target.write_bytes(bytes(2**20))
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), USAGE, "1048576 bytes", "lvextend")


def test_an_existing_plan_is_kept(planned_guest):
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.make_plan(), USAGE, "--force")


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--volume=/dev/vg0/other=/tmp/x", "is not a disk of this guest"),
        ("--volume=/dev/vg0/xvda2", "DEVICE=PATH"),
        ("--root=xvda7", "none of the guest's devices"),
        ("--first-sector=40", "40 is not one of"),
    ],
)
def test_an_option_that_does_not_fit_the_guest(small_guest, option, word):
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(option), USAGE, word)


def test_a_target_that_a_loop_device_holds(planned_guest):
    planned_guest.result("sync")
    argv = ["losetup", "-f", "--show", str(planned_guest.target)]
    loop = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        assert_one_error(planned_guest.step("sync"), REFUSED, loop)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_a_target_with_a_different_partition_table(planned_guest):
    with planned_guest.target.open("wb") as target:
        target.truncate(80 * 2**20)
    subprocess.run(["sfdisk", "-q", str(planned_guest.target)], input="2048,2048,L\n", text=True, check=True)
    text = planned_guest.plan.read_text()
    size = next(line for line in text.splitlines() if line.startswith("size = "))
    planned_guest.plan.write_text(text.replace(size, f"size = {80 * 2**20}", 1))
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, "a different dos partition table")


def test_a_target_with_a_file_system_of_its_own(planned_guest):
    size = int(planned_guest.plan.read_text().split("size = ")[1].split()[0])
    with planned_guest.target.open("wb") as target:
        target.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", str(planned_guest.target)], check=True)
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, "carries ext4")


def test_a_volume_that_was_resized_since_the_plan(planned_guest):
    with planned_guest.volumes["xvda3"].open("r+b") as volume:
        volume.truncate(64 * 2**20)
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, "the plan was made for", "xen2kvm plan")


def test_a_volume_that_was_formatted_since_the_plan(planned_guest):
    subprocess.run(["mkfs.ext4", "-q", "-F", str(planned_guest.volumes["xvda3"])], check=True)
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("sync"), REFUSED, "the plan was made for ext4")


@pytest.mark.parametrize("command", ["sync", "rehearse", "cutover"])
def test_a_plan_that_is_not_there(small_guest, command):
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.step(command), USAGE, "guest.toml", "xen2kvm plan")


def test_a_rehearsal_on_a_bridge_that_is_not_there(planned_guest):
    with nothing_written(planned_guest.folder):
        done = planned_guest.step("rehearse", "--network=x2knone")
        assert_one_error(done, USAGE, "bridge x2knone", "ip link add")


def test_a_rehearsal_before_the_first_pass(planned_guest):
    with nothing_written(planned_guest.folder):
        assert_one_error(planned_guest.step("rehearse"), REFUSED, "no complete copy", "xen2kvm sync")
