"""Guests mounted out of one disk on real filesystems, and nothing left behind."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from blocksync.errors import Failed, Refused, Usage
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.mounts import MountSpec, mounted, unmount_leftovers

MIB = 1 << 20
SIZES = {"ext2": 16, "ext3": 16, "ext4": 16, "xfs": 320, "btrfs": 128}
MKFS = {
    "ext2": ["mkfs.ext2", "-q", "-F"],
    "ext3": ["mkfs.ext3", "-q", "-F"],
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    deadline = time.monotonic() + 5
    while len(set(namespaces().values())) > 1:
        assert time.monotonic() < deadline, "a thread is still in a namespace of its own"
        time.sleep(0.01)


def guest_mounts() -> list[list[str]]:
    """What is mounted in the namespace of the guest, as the kernel tells the thread that is in it."""
    ours = Path("/proc/self/ns/mnt").readlink()
    (other,) = (thread for thread, namespace in namespaces().items() if namespace != ours)
    lines = (other / "mountinfo").read_text().splitlines()
    return [line.split() for line in lines if line.split()[4].startswith("/run") and "/dev/loop" in line]


def namespaces() -> dict[Path, Path]:
    """The mount namespace of each thread of this process."""
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found[thread] = (thread / "ns/mnt").readlink()
    return found


def loops_of(raw: Path) -> list[str]:
    listed = subprocess.run(
        ["losetup", "--noheadings", "-O", "NAME", "-j", raw], check=True, capture_output=True, text=True
    )
    return listed.stdout.split()


def disk(path: Path, volumes: list[tuple[str, Path | None]]) -> list[MountSpec]:
    """A disk with a gap of a MiB and then each volume; a folder is copied into an ext one by mke2fs."""
    specs, offset = [], MIB
    for number, (kind, content) in enumerate(volumes):
        volume = path.with_suffix(f".{number}")
        size = SIZES[kind] * MIB
        volume.touch()
        os.truncate(volume, size)
        subprocess.run([*MKFS[kind], *(["-d", content] if content else []), volume], check=True)
        subprocess.run(
            [
                "dd",
                f"if={volume}",
                f"of={path}",
                "bs=1M",
                f"seek={offset // MIB}",
                "conv=sparse,notrunc",
                "status=none",
            ],
            check=True,
        )
        volume.unlink()
        os.truncate(path, offset + size)
        specs.append(MountSpec(offset, size, kind, "/" if number == 0 else f"/v{number}"))
        offset += size
    return specs


@pytest.fixture
def content(tmp_path):
    folder = tmp_path / "content"
    for name in ("etc", "srv", "v1", "v2", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/fstab").write_bytes(b"old\n")
    return folder


@pytest.mark.parametrize("kind", SIZES)
def test_every_supported_type_takes_edits_that_last(tmp_path, kind):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [(kind, None)])
    with mounted(raw, specs) as guest:
        guest.apply([Edit("/etc/fstab", b"new\n", "r")])
    assert loops_of(raw) == []
    with mounted(raw, specs, read_only=True) as guest:
        assert guest.read("/etc/fstab") == b"new\n"
    assert loops_of(raw) == []


def test_other_volumes_are_inside_the_root_whatever_their_order(tmp_path, content):
    raw = tmp_path / "disk.img"
    (content / "v1/hidden").write_bytes(b"under the mount\n")
    specs = disk(raw, [("ext4", content), ("xfs", None), ("btrfs", None)])
    with mounted(raw, [specs[2], specs[1], specs[0]]) as guest:
        assert guest.names("/v1") == ()
        guest.apply([Edit("/v1/a/file", b"one", "r"), Edit("/v2/file", b"two", "r")])
        assert [fields[5] for fields in guest_mounts()] == ["rw,nosuid,nodev,noexec,relatime"] * 3
        assert len(loops_of(raw)) == 3
    with mounted(raw, specs[:1]) as guest:
        assert guest.names("/v1") == ("hidden",)
    with mounted(raw, specs, read_only=True) as guest:
        assert (guest.read("/v1/a/file"), guest.read("/v2/file")) == (b"one", b"two")


def test_a_mountpoint_under_another_volume_is_mounted_after_it(tmp_path, content):
    raw = tmp_path / "disk.img"
    below = tmp_path / "below"
    (below / "www").mkdir(parents=True)
    root, outer, inner = disk(raw, [("ext4", content), ("ext4", below), ("ext4", None)])
    specs = [
        MountSpec(inner.offset, inner.size, "ext4", "/srv/www"),
        MountSpec(outer.offset, outer.size, "ext4", "/srv"),
        root,
    ]
    with mounted(raw, specs) as guest:
        assert guest.names("/srv") == ("lost+found", "www")
        assert guest.names("/srv/www") == ("lost+found",)


def test_not_a_byte_is_written_when_mounted_for_reading_even_after_a_crash(tmp_path, content):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content)])
    # A journal that waits to be replayed, as in a copy of a guest that runs: mounting for writing changes it.
    subprocess.run(
        ["debugfs", "-w", "-R", "feature needs_recovery", f"{raw}?offset={specs[0].offset}"],
        check=True,
        capture_output=True,
    )
    before = hashlib.blake2b(raw.read_bytes()).digest()
    with mounted(raw, specs, read_only=True) as guest:
        assert guest.read("/etc/fstab") == b"old\n"
        with pytest.raises(Failed, match="Read-only file system"):
            guest.apply([Edit("/etc/fstab", b"new\n", "r")])
    assert hashlib.blake2b(raw.read_bytes()).digest() == before


def test_bytes_outside_the_filesystem_are_not_touched(tmp_path, content):
    raw = tmp_path / "disk.img"
    (spec,) = disk(raw, [("ext4", content)])
    with raw.open("r+b") as file:
        file.write(b"\xa5" * spec.offset)
        file.seek(spec.offset + spec.size)
        file.write(b"\x5a" * MIB)
    with mounted(raw, [spec]) as guest:
        guest.apply([Edit("/etc/fstab", b"new\n", "r")])
    around = raw.read_bytes()
    assert around[: spec.offset] == b"\xa5" * spec.offset
    assert around[spec.offset + spec.size :] == b"\x5a" * MIB


def test_a_block_device_is_a_disk_too(tmp_path, content):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content)])
    device = subprocess.run(
        ["losetup", "--find", "--show", raw], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        with mounted(Path(device), specs) as guest:
            guest.apply([Edit("/etc/fstab", b"new\n", "r")])
        assert loops_of(Path(device)) == []
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    with mounted(raw, specs, read_only=True) as guest:
        assert guest.read("/etc/fstab") == b"new\n"


@pytest.mark.skipif(shutil.which("qemu-storage-daemon") is None, reason="needs qemu-utils")
def test_a_fuse_file_is_a_disk_too(tmp_path, content):
    raw, fuse, pidfile = tmp_path / "disk.img", tmp_path / "fuse.img", tmp_path / "pid"
    specs = disk(raw, [("ext4", content)])
    fuse.touch()
    subprocess.run(
        [
            "qemu-storage-daemon",
            "--daemonize",
            f"--pidfile={pidfile}",
            f"--blockdev=driver=file,node-name=disk,filename={raw}",
            f"--export=type=fuse,id=it,node-name=disk,mountpoint={fuse},writable=on",
        ],
        check=True,
    )
    try:
        with mounted(fuse, specs) as guest:
            guest.apply([Edit("/etc/fstab", b"new\n", "r")])
        assert loops_of(fuse) == []
    finally:
        daemon = int(pidfile.read_text())
        os.kill(daemon, signal.SIGTERM)
        while Path(f"/proc/{daemon}").exists():
            time.sleep(0.05)
    with mounted(raw, specs, read_only=True) as guest:
        assert guest.read("/etc/fstab") == b"new\n"


@pytest.mark.parametrize("target", ["{host}", "../../../../../../..{host}"], ids=["absolute", "dots"])
def test_a_mountpoint_that_links_to_the_host_never_reaches_it(tmp_path, content, target):
    host = tmp_path / "host"
    host.mkdir()
    (content / "v1").rmdir()
    (content / "v1").symlink_to(target.format(host=host))
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content), ("ext4", None)])
    with pytest.raises(Failed, match="/v1 in the guest: it cannot be mounted there"), mounted(raw, specs):
        pytest.fail("it was mounted")
    assert not os.path.ismount(host)
    assert loops_of(raw) == []


def test_a_mountpoint_that_links_inside_the_guest_is_followed_there(tmp_path, content):
    (content / "v1").rmdir()
    (content / "v1").symlink_to("/data")
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content), ("ext4", None)])
    with mounted(raw, specs) as guest:
        assert guest.names("/data") == ("lost+found",)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception(tmp_path, content, error):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content), ("ext4", None)])
    with pytest.raises(error), mounted(raw, specs):
        assert len(loops_of(raw)) == 2
        raise error
    assert loops_of(raw) == []


def test_nothing_is_left_when_a_later_mount_fails(tmp_path, content):
    raw = tmp_path / "disk.img"
    root, other = disk(raw, [("ext4", content), ("ext4", None)])
    wrong = MountSpec(other.offset, other.size, "xfs", "/v1")
    with pytest.raises(Failed, match="xfs for /v1 cannot be mounted"), mounted(raw, [root, wrong]):
        pytest.fail("it was mounted")
    assert loops_of(raw) == []


def test_interrupts_at_any_moment_leave_nothing(tmp_path, content):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content), ("ext4", None)])
    script = textwrap.dedent(f"""
        from pathlib import Path
        from orchestrate.guest.files.mounts import MountSpec, mounted
        print("ready", flush=True)
        while True:
            with mounted(Path({str(raw)!r}), {specs!r}) as guest:
                guest.read("/etc/fstab")
    """)
    for delay in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.11, 0.15):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert "KeyboardInterrupt" in said
        assert loops_of(raw) == []


def test_a_busy_mount_is_waited_for(tmp_path, content):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content)])
    with mounted(raw, specs) as guest:
        holder = subprocess.Popen(["sleep", "0.5"], cwd=f"/proc/self/fd/{guest._root}")
    assert holder.wait() == 0
    assert loops_of(raw) == []


def test_no_other_process_sees_the_guest_or_keeps_it_busy(tmp_path, content):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content), ("xfs", None)])
    started = time.monotonic()
    with mounted(raw, specs) as guest:
        guest.apply([Edit("/v1/file", b"new\n", "r")])
        # What a container or a service with a private /tmp does: its namespace is a copy of this one.
        command = ["unshare", "--mount", "sh", "-c", "cat /proc/self/mountinfo; echo; exec sleep 60"]
        stranger = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert stranger.stdout is not None
        sees = "".join(iter(stranger.stdout.readline, "\n"))
        numbers = [fields[2] for fields in guest_mounts()]
    try:
        assert time.monotonic() - started < 8
        assert stranger.poll() is None
        assert loops_of(raw) == []
        assert len(numbers) == 2
        assert not [number for number in numbers if f" {number} " in sees]
    finally:
        stranger.kill()
        stranger.wait()
        stranger.stdout.close()


@pytest.mark.parametrize("kind", ["ntfs", "zfs_member", "", "ext4,loop"])
def test_an_unsupported_type_is_refused_before_anything_is_mounted(tmp_path, kind):
    with (
        pytest.raises(Refused, match="filesystem type") as refusal,
        mounted(tmp_path / "none", [MountSpec(0, MIB, kind, "/")]),
    ):
        pytest.fail("it was mounted")
    assert refusal.value.guard == "guest-filesystem"


@pytest.mark.parametrize("places", [[], ["/srv"], ["/", "/"], ["/", "/srv", "/srv/"]], ids=str)
def test_filesystems_that_do_not_fit_together_are_a_usage_error(tmp_path, places):
    specs = [MountSpec(MIB * number, MIB, "ext4", place) for number, place in enumerate(places)]
    with pytest.raises(Usage, match="one root and no folder twice"), mounted(tmp_path / "none", specs):
        pytest.fail("it was mounted")


def test_a_disk_that_is_not_there_is_named(tmp_path):
    with (
        pytest.raises(Failed, match=r"none\.img"),
        mounted(tmp_path / "none.img", [MountSpec(0, MIB, "ext4", "/")]),
    ):
        pytest.fail("it was mounted")


def test_nothing_is_left_of_a_process_that_was_killed(tmp_path, content):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content), ("ext4", None)])
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from orchestrate.guest.files.edit import Edit
        from orchestrate.guest.files.mounts import MountSpec, mounted
        with mounted(Path({str(raw)!r}), {specs!r}) as guest:
            guest.apply([Edit("/etc/fstab", b"new", "r"), Edit("/v1/file", b"new", "r")])
            print("ready", flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(loops_of(raw)) == 2
        process.kill()
    unmount_leftovers(raw)
    assert loops_of(raw) == []
    with mounted(raw, specs, read_only=True) as guest:
        assert guest.read("/etc/fstab") == b"new"


def test_a_device_that_somebody_else_has_on_the_disk_is_not_waited_for(tmp_path, content):
    raw = tmp_path / "disk.img"
    disk(raw, [("ext4", content)])
    device = subprocess.run(
        ["losetup", "--find", "--show", raw], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        started = time.monotonic()
        unmount_leftovers(raw)
        assert time.monotonic() - started < 5
        assert loops_of(raw) == [device]
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir], ids=["file", "folder"])
def test_what_a_stranger_put_into_the_temporary_folder_stops_nothing(tmp_path, content, monkeypatch, make):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stranger = tmp_path / "xen2kvm-guest-4194304999-1"
    make(stranger)
    if stranger.is_dir():
        (stranger / "file").touch()
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content)])
    unmount_leftovers(raw)
    with mounted(raw, specs) as guest:
        guest.apply([Edit("/etc/fstab", b"new", "r")])
    assert stranger.exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_udev_is_kept_from_the_devices_of_a_guest(tmp_path, content, read_only):
    raw = tmp_path / "disk.img"
    specs = disk(raw, [("ext4", content)])
    with mounted(raw, specs, read_only=read_only):
        (device,) = loops_of(raw)
        # What udev does before it looks at a device (systemd, "Locking Block Device Access").
        with Path(device).open("rb") as node, pytest.raises(BlockingIOError):
            fcntl.flock(node, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_file_system_that_could_not_be_written_is_an_error_and_not_silence(tmp_path, content):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        raw = small / "disk.img"
        specs = disk(raw, [("ext4", content)])
        with (
            pytest.raises(Failed, match="was not written as a whole") as failed,
            mounted(raw, specs) as guest,
        ):
            # New files are not waited for one by one: only the end can tell.
            guest.apply([Edit(f"/data/{number}", os.urandom(MIB), "r") for number in range(8)])
        assert "dmesg" in failed.value.way_out
        assert loops_of(raw) == []
    finally:
        subprocess.run(["umount", small], check=True)
