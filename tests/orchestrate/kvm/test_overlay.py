"""Real overlays with ext4 through FUSE and a loop device; the target's checksum never changes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from boot_sectors import printing

from blocksync.errors import Failed, Refused
from orchestrate.kvm.machine import Machine, MachineSpec
from orchestrate.kvm.overlay import Overlay, overlay, remove_leftovers

pytestmark = [
    pytest.mark.skipif(not shutil.which("qemu-storage-daemon"), reason="needs qemu-storage-daemon"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs FUSE"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
]

OFFSET = 1 << 20
FILESYSTEM_BYTES = 16 << 20


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A boot sector, a gap, and an ext4 at 1 MiB with one file in it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "fstab").write_text("/dev/xvda2 / ext4\n")
    disk = tmp_path / "target disk"
    disk.write_bytes(printing("old login:"))
    os.truncate(disk, OFFSET + FILESYSTEM_BYTES)
    options = f"offset={OFFSET}"
    blocks = str(FILESYSTEM_BYTES // 1024) + "k"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", options, "-d", tree, disk, blocks], check=True)
    return disk


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def loop_device(path: Path) -> Iterator[str]:
    command = ["losetup", "--find", "--show", "--offset", str(OFFSET), path]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def mounted(raw: Path, folder: Path) -> Iterator[Path]:
    mountpoint = folder / "mnt"
    mountpoint.mkdir(exist_ok=True)
    with loop_device(raw) as device:
        subprocess.run(["mount", "-t", "ext4", device, mountpoint], check=True)
        try:
            yield mountpoint
        finally:
            subprocess.run(["umount", mountpoint], check=True)


def test_what_is_written_stays_in_the_overlay(target: Path, tmp_path: Path) -> None:
    before = checksum(target)
    with overlay(target, tmp_path / "work") as layer:
        with layer.raw() as raw:
            assert raw.stat().st_size == target.stat().st_size
            with mounted(raw, tmp_path) as root:
                assert (root / "fstab").read_text() == "/dev/xvda2 / ext4\n"
                (root / "fstab").write_text("UUID=1 / ext4\n")
        assert checksum(target) == before
        with layer.raw() as raw, mounted(raw, tmp_path) as root:
            assert (root / "fstab").read_text() == "UUID=1 / ext4\n"
    assert checksum(target) == before
    assert list((tmp_path / "work").iterdir()) == []


def test_the_overlay_boots_with_what_was_written_through_the_raw_file(target: Path, tmp_path: Path) -> None:
    before = checksum(target)
    with overlay(target, tmp_path / "work") as layer:
        with layer.raw() as raw, raw.open("r+b") as disk:
            disk.write(printing("new login:"))
        spec = MachineSpec(layer.qcow2, disk_format="qcow2", memory_mib=64, accelerator="tcg")
        with Machine(spec, tmp_path / "console.log") as machine:
            assert machine.wait_for(r"\w+ login:", 20).text == "new login:"
    assert checksum(target) == before


def test_a_block_device_can_be_the_target(target: Path, tmp_path: Path) -> None:
    before = checksum(target)
    with loop_device(target) as device, overlay(Path(device), tmp_path / "work") as layer:
        with layer.raw() as raw, raw.open("r+b") as disk:
            disk.write(b"\xff" * 65536)
        with layer.raw() as raw, raw.open("rb") as disk:
            assert disk.read(65536) == b"\xff" * 65536
    assert checksum(target) == before


def test_all_of_it_is_thrown_away_after_an_exception(target: Path, tmp_path: Path) -> None:
    before = checksum(target)
    with pytest.raises(KeyboardInterrupt), overlay(target, tmp_path / "work") as layer, layer.raw() as raw:
        raw.write_bytes(b"x" * 4096)
        raise KeyboardInterrupt
    assert list((tmp_path / "work").iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert checksum(target) == before


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1, 0.15])
def test_an_interrupt_at_any_moment_leaves_nothing(target: Path, tmp_path: Path, delay: float) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from orchestrate.kvm.overlay import overlay\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    with overlay(Path(sys.argv[1]), Path(sys.argv[2])) as layer, layer.raw():\n"
        "        pass\n"
    )
    command = [sys.executable, "-c", program, str(target), str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        said = interrupted(child)
    assert "KeyboardInterrupt" in said
    assert list((tmp_path / "work").glob("*")) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def interrupted(child: subprocess.Popen[str]) -> str:
    """What it says. An interrupt is lost while Python deletes an object: whoever sits there tries again."""
    while True:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=10)[1]


def test_the_raw_file_and_a_machine_never_have_the_overlay_together(target: Path, tmp_path: Path) -> None:
    with overlay(target, tmp_path / "work") as layer, layer.raw():
        spec = MachineSpec(layer.qcow2, disk_format="qcow2", memory_mib=64, accelerator="tcg")
        with Machine(spec, tmp_path / "console.log") as machine, pytest.raises(Failed, match="lock"):
            machine.wait_for("login:", 20)


def test_a_second_raw_file_of_the_same_overlay_is_refused(target: Path, tmp_path: Path) -> None:
    with overlay(target, tmp_path / "work") as layer, layer.raw():
        other = Overlay(target, layer.qcow2.with_name("other") / "overlay.qcow2", layer.let_go)
        other.qcow2.parent.mkdir()
        other.qcow2.symlink_to(layer.qcow2)
        with pytest.raises(Failed, match="lock"), other.raw():
            pass


def test_a_loop_device_left_behind_is_named(target: Path, tmp_path: Path) -> None:
    left: list[str] = []
    try:
        with (
            pytest.raises(Failed, match="still in use by /dev/loop"),
            overlay(target, tmp_path / "work") as layer,
            layer.raw() as raw,
        ):
            command = ["losetup", "--find", "--show", raw]
            left.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    finally:
        for device in left:
            subprocess.run(["losetup", "--detach", device], check=True)


def test_a_target_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="missing"), overlay(tmp_path / "missing", tmp_path / "work"):
        pass
    assert list((tmp_path / "work").iterdir()) == []


def test_a_target_of_a_running_guest_is_refused(target: Path, tmp_path: Path) -> None:
    spec = MachineSpec(target, memory_mib=64, accelerator="tcg")
    with Machine(spec, tmp_path / "console.log") as machine:
        machine.wait_for("login:", 20)
        with pytest.raises(Refused, match="running guest") as refused, overlay(target, tmp_path / "work"):
            pass
    assert refused.value.guard == "held"
    assert list((tmp_path / "work").iterdir()) == []


def test_no_guest_starts_on_the_target_below_an_overlay(target: Path, tmp_path: Path) -> None:
    spec = MachineSpec(target, memory_mib=64, accelerator="tcg")
    with (
        overlay(target, tmp_path / "work"),
        Machine(spec, tmp_path / "console.log") as machine,
        pytest.raises(Failed, match="lock"),
    ):
        machine.wait_for("login:", 20)


def test_the_export_ends_when_this_process_is_killed(target: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from orchestrate.kvm.overlay import overlay\n"
        "with overlay(Path(sys.argv[1]), Path(sys.argv[2])) as layer, layer.raw() as raw:\n"
        "    print(raw, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(target), str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        raw = child.stdout.readline().strip()
        assert raw in Path("/proc/self/mounts").read_text().replace("\\040", " ")
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while str(tmp_path) in Path("/proc/self/mounts").read_text():
        assert time.monotonic() < deadline, "the FUSE export outlived its process"
        time.sleep(0.05)


def left_by_a_kill(target: Path, work: Path) -> Path:
    """The folder of an overlay whose process was killed, its daemon with it."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from orchestrate.kvm.overlay import overlay\n"
        "with overlay(Path(sys.argv[1]), Path(sys.argv[2])) as layer, layer.raw() as raw:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, target, work], check=False)
    assert killed.returncode == -signal.SIGKILL
    (folder,) = work.glob("overlay-*")
    return folder


def test_what_a_kill_left_is_removed(target: Path, tmp_path: Path) -> None:
    left_by_a_kill(target, tmp_path / "work")
    released: list[Path] = []
    remove_leftovers(tmp_path / "work", released.append)
    assert [raw.name for raw in released] == ["raw"]
    assert list((tmp_path / "work").iterdir()) == []


def test_a_folder_of_the_operator_s_stays_whatever_its_name(target: Path, tmp_path: Path) -> None:
    job, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    for folder in (job / "overlay-1", job / "overlay-abcdefgh", job / "overlay-empty", elsewhere):
        folder.mkdir(parents=True)
    (job / "overlay-1/precious").touch()
    (job / "overlay-abcdefgh/overlay.qcow2").touch()
    (job / "overlay-file").touch()
    (job / "overlay-link").symlink_to(elsewhere)
    # What is in it looks like ours, and is somebody else's.
    left_by_a_kill(target, elsewhere)
    (copied,) = elsewhere.glob("overlay-*")
    (job / "overlay-linked").symlink_to(copied)
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(job, lambda raw: pytest.fail(f"{raw} is not ours"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mark", [b"", b"mine\n", None])
def test_a_mark_that_is_not_ours_keeps_its_folder(tmp_path: Path, mark: bytes | None) -> None:
    folder = tmp_path / "overlay-abcdefgh"
    folder.mkdir()
    if mark is None:
        os.mkfifo(folder / "made-by-xen2kvm")
    else:
        (folder / "made-by-xen2kvm").write_bytes(mark)
    remove_leftovers(tmp_path, lambda raw: pytest.fail(f"{raw} is not ours"))
    assert len(list(folder.iterdir())) == 1


def test_what_was_put_into_a_leftover_stays(target: Path, tmp_path: Path) -> None:
    folder = left_by_a_kill(target, tmp_path / "work")
    (folder / "notes").touch()
    remove_leftovers(tmp_path / "work", lambda _: None)
    assert list(folder.iterdir()) == [folder / "notes"]


def test_only_what_has_the_overlay_is_ended(target: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    folder = left_by_a_kill(target, work)
    beside = tmp_path / "elsewhere" / folder.name
    beside.mkdir(parents=True)
    (tmp_path / f"{folder.name}0.img").touch()
    os.truncate(tmp_path / f"{folder.name}0.img", 1 << 20)
    shutil.copy(tmp_path / f"{folder.name}0.img", beside / "overlay.qcow2")
    qemu = ["qemu-system-x86_64", "-machine", "none", "-display", "none", "-nodefaults", "-drive"]
    strangers = [
        subprocess.Popen([*qemu, f"if=none,format=raw,file={path}"])
        for path in (tmp_path / f"{folder.name}0.img", beside / "overlay.qcow2")
    ]
    # Not QEMU, though it has the path, and QEMU's name, in its arguments.
    strangers.append(subprocess.Popen(["sleep", "60"], stdin=(folder / "overlay.qcow2").open("rb")))
    ours = subprocess.Popen([*qemu, f"if=none,format=qcow2,file={folder}/overlay.qcow2"])
    try:
        remove_leftovers(work, lambda _: None)
        assert ours.wait(10) is not None
        assert [process.poll() for process in strangers] == [None, None, None]
    finally:
        for process in (*strangers, ours):
            process.kill()
            process.wait()
    assert list(work.iterdir()) == []


def test_the_storage_daemon_has_few_of_root_s_rights(target: Path, tmp_path: Path) -> None:
    with overlay(target, tmp_path / "work") as layer, layer.raw():
        pid = layer.qcow2.with_name("storage-daemon.pid").read_text().strip()
        told = Path("/proc", pid, "status").read_text()
    assert "NoNewPrivs:\t1\n" in told
    rights = int(told.partition("CapEff:\t")[2].split()[0], 16)
    assert rights == 1 << 21 | 1 << 1  # CAP_SYS_ADMIN, CAP_DAC_OVERRIDE
