"""Passes, cutover and the way back to passes, on real file systems without a boot."""

import fcntl
import hashlib
import json
import subprocess
import tomllib
from pathlib import Path

from orchestrate.guest.files.mounts import MountSpec, mounted


def partitions(guest) -> dict[str, tuple[int, int]]:
    plan = tomllib.loads(guest.plan.read_text())
    return {row["device"]: (row["partition"]["offset"], row["size"]) for row in plan["volume"]}


def on_target(guest, device: str) -> bytes:
    offset, size = partitions(guest)[device]
    with guest.target.open("rb") as target:
        target.seek(offset)
        return target.read(size)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change(guest, device: str, offset: int, data: bytes) -> None:
    with guest.volumes[device].open("r+b") as volume:
        volume.seek(offset)
        volume.write(data)


def test_plan_writes_nothing_but_the_plan(small_guest):
    before = set(small_guest.folder.iterdir())
    assert small_guest.make_plan().returncode == 0
    assert set(small_guest.folder.iterdir()) - before == {small_guest.plan}


def test_the_first_pass_lays_every_volume_into_its_partition(planned_guest):
    report = planned_guest.result("sync")
    assert report["table_written"]
    for device in ("xvda2", "xvda3"):
        assert on_target(planned_guest, device) == planned_guest.volumes[device].read_bytes()
    found = json.loads(
        subprocess.run(
            ["sfdisk", "--json", str(planned_guest.target)], check=True, capture_output=True, text=True
        ).stdout
    )
    starts = {part["start"] * 512 for part in found["partitiontable"]["partitions"]}
    assert starts == {offset for offset, _ in partitions(planned_guest).values()}


def test_swap_is_made_anew_with_its_identity_and_once(planned_guest, tmp_path):
    assert planned_guest.result("sync")["swap_made"] == ["xvda1"]
    made = tmp_path / "made"
    made.write_bytes(on_target(planned_guest, "xvda1"))

    def identity(path: Path) -> str:
        argv = ["blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "UUID", "-s", "LABEL", str(path)]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    assert identity(made) == identity(planned_guest.volumes["xvda1"])
    assert planned_guest.result("sync")["swap_made"] == []


def test_another_pass_writes_only_what_changed(planned_guest):
    planned_guest.result("sync")
    change(planned_guest, "xvda3", 20 * 2**20, b"changed" * 1000)
    report = planned_guest.result("sync")
    assert not report["table_written"]
    assert report["volumes"]["xvda2"]["bytes_written"] == 0
    assert 7000 <= report["volumes"]["xvda3"]["bytes_written"] <= 2 * 65536
    assert on_target(planned_guest, "xvda3") == planned_guest.volumes["xvda3"].read_bytes()


def test_a_dry_run_says_what_a_pass_would_write_and_writes_nothing(planned_guest):
    assert planned_guest.result("sync", "--dry-run")["table_written"]
    assert not planned_guest.target.exists()
    planned_guest.result("sync")
    change(planned_guest, "xvda3", 20 * 2**20, b"changed")
    before = digest(planned_guest.target)
    report = planned_guest.result("sync", "--dry-run")
    assert report["bytes_changed"] == 16384
    assert digest(planned_guest.target) == before


def test_two_commands_on_one_job_the_second_is_told_who_holds_it(planned_guest):
    planned_guest.result("sync")
    with (planned_guest.folder / "job" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        done = planned_guest.step("sync")
    assert done.returncode == 3
    assert "process 4711" in done.stderr


def test_cutover_repairs_the_guest_on_the_target_and_leaves_the_volumes_alone(planned_guest):
    volumes = {device: digest(path) for device, path in planned_guest.volumes.items()}
    planned_guest.result("sync")
    report = planned_guest.result("cutover")
    assert {device: digest(path) for device, path in planned_guest.volumes.items()} == volumes
    assert Path(report["xml"]).read_text().startswith("<domain type=")
    offset, size = partitions(planned_guest)["xvda2"]
    with mounted(planned_guest.target, [MountSpec(offset, size, "ext4", "/")], read_only=True) as tree:
        assert b"/dev/xvda" not in tree.read("/etc/fstab")
        assert b"/dev/xvda2" in tree.read("/etc/fstab.xen2kvm-orig")
        assert b"menuentry" in tree.read("/boot/grub/grub.cfg")
        assert "normal.mod" in tree.names("/boot/grub/i386-pc")
    with planned_guest.target.open("rb") as target:
        assert target.read(440).rstrip(b"\0")


def test_after_the_cutover_only_again_goes_back_to_passes(planned_guest):
    planned_guest.result("sync")
    planned_guest.result("cutover")
    before = digest(planned_guest.target)
    for command in ("sync", "cutover", "rehearse"):
        done = planned_guest.step(command)
        assert done.returncode == 3
        assert "since the cutover" in done.stderr
    assert digest(planned_guest.target) == before
    planned_guest.result("sync", "--again", "--yes")
    for device in ("xvda2", "xvda3"):
        assert on_target(planned_guest, device) == planned_guest.volumes[device].read_bytes()


def test_a_damaged_state_is_never_taken_for_a_fresh_one(planned_guest):
    planned_guest.result("sync")
    (planned_guest.folder / "job" / "state.json").write_text("{")
    done = planned_guest.step("sync")
    assert done.returncode == 1
    assert "is damaged" in done.stderr
