"""Whoever uses a target is seen: by any name, through loop devices and partitions, in other namespaces."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.devices import device as devices
from blocksync.devices import guards
from blocksync.devices import target as targets
from blocksync.devices.users import KernelView
from blocksync.errors import Refused
from blocksync.passes import PassRequest
from other_processes import another_process

MIB = 2**20
SIZE = 4 * MIB
Image = Callable[[str, int], Path]
Attach = Callable[..., Path]
WRITES = "held = open(sys.argv[1], 'r+b')"


def run(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def refused(source: Path, target: Path) -> Refused:
    """The refusal of a pass, after which the target holds what it held."""
    before = target.open("rb").read()
    with pytest.raises(Refused) as caught:
        passes.run(PassRequest(source=source, target=target))
    assert target.open("rb").read() == before
    return caught.value


@contextmanager
def mounted(what: Path, where: Path, *options: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    run("mount", *options, what, where)
    try:
        yield where
    finally:
        run("umount", where)


@pytest.fixture
def source(image: Image) -> Path:
    return image("source", SIZE)


def test_a_pass_never_writes_under_a_mounted_file_system(
    source: Path, image: Image, loop: Attach, tmp_path: Path
) -> None:
    """A loop device on a block device is how one looks into a copy on a logical volume."""
    target = loop(image("backing", 24 * MIB))
    part = loop(target, "--offset", 8 * MIB, "--sizelimit", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", part)
    with mounted(part, tmp_path / "mount point"):
        refusal = refused(source, target)
        assert (refusal.guard, "mount point" in refusal.cause) == ("mounted", True)
        with pytest.raises(Refused):
            targets.write_ranges(target, [(0, b"x")])


def test_a_pass_never_writes_under_a_loop_device_even_on_another_one(
    source: Path, image: Image, loop: Attach
) -> None:
    backing = image("backing", 16 * MIB)
    first = loop(backing)
    second = loop(first, "--offset", MIB)
    third = loop(second, "--offset", MIB, "--read-only")
    for target, user in ((second, third), (first, second), (backing, first)):
        refusal = refused(source, target)
        assert (refusal.guard, str(user) in refusal.cause) == ("held", True)
    run("losetup", "--detach", third)
    passes.run(PassRequest(source=source, target=second))


def test_loop_devices_on_one_file_are_in_each_other_s_way_where_they_share_bytes(
    source: Path, image: Image, loop: Attach
) -> None:
    backing = image("backing", 16 * MIB)
    target = loop(backing, "--offset", 2 * MIB, "--sizelimit", SIZE)
    loop(backing, "--sizelimit", 2 * MIB)
    loop(backing, "--offset", 2 * MIB + SIZE)
    passes.run(PassRequest(source=source, target=target))
    over = loop(backing, "--offset", 5 * MIB)
    assert str(over) in refused(source, target).cause


def test_a_loop_device_is_known_whatever_became_of_the_name_of_its_file(
    source: Path, image: Image, loop: Attach, tmp_path: Path
) -> None:
    first = image("backing", SIZE)
    target = tmp_path / "hard link"
    target.hardlink_to(first)
    device = loop(first)
    first.unlink()
    first.write_bytes(b"another file")
    refusal = refused(source, target)
    assert (refusal.guard, str(device) in refusal.cause) == ("held", True)


@pytest.mark.parametrize("name", ["hard link", "bind mount", "renamed", "unlinked"])
def test_a_writer_is_seen_by_whatever_name_it_opened_the_file(
    source: Path, image: Image, tmp_path: Path, name: str
) -> None:
    target, alias = image("target", SIZE), tmp_path / "alias.img"
    with ExitStack() as stack:
        if name == "bind mount":
            alias.touch()
            run("mount", "--bind", target, alias)
            stack.callback(run, "umount", alias)
        else:
            alias.hardlink_to(target)
        pid = stack.enter_context(another_process(WRITES, alias))
        if name == "renamed":
            alias.rename(tmp_path / "other")
        if name == "unlinked":
            alias.unlink()
        refusal = refused(source, target)
    assert (refusal.guard, str(pid) in refusal.cause) == ("open", True)


def test_a_writer_is_seen_by_whatever_node_it_opened_the_device(
    source: Path, image: Image, loop: Attach, tmp_path: Path
) -> None:
    target, node = loop(image("backing", SIZE)), tmp_path / "disk.raw"
    os.mknod(node, stat.S_IFBLK | 0o600, target.stat().st_rdev)
    with another_process(WRITES, node) as pid:
        refusal = refused(source, target)
    assert (refusal.guard, str(pid) in refusal.cause) == ("open", True)
    with another_process(WRITES, target) as pid:
        assert str(pid) in refused(source, node).cause


def test_a_writer_of_the_file_behind_a_loop_device_is_seen(source: Path, image: Image, loop: Attach) -> None:
    backing = image("backing", SIZE)
    target = loop(loop(backing))
    with another_process(WRITES, backing) as pid:
        refusal = refused(source, target)
    assert (refusal.guard, str(pid) in refusal.cause) == ("open", True)


def test_whoever_only_reads_is_no_reason(source: Path, image: Image, loop: Attach, tmp_path: Path) -> None:
    backing, other = image("backing", SIZE), image("other", SIZE)
    target, alias = loop(backing), tmp_path / "alias"
    alias.hardlink_to(backing)
    with another_process("held = open(sys.argv[1], 'rb')", alias), another_process(WRITES, other):
        passes.run(PassRequest(source=source, target=target))


def partition(sys: Path, disk: Path, part: Path) -> KernelView:
    """A sysfs in which one loop device is a partition of another, which this kernel has none of."""
    numbers = [f"{os.major(each.stat().st_rdev)}:{os.minor(each.stat().st_rdev)}" for each in (disk, part)]
    whole = sys / "dev/block" / numbers[0]
    for node, number, told in (
        (whole, numbers[0], {"size": "16384"}),
        (whole / "part1", numbers[1], {"size": "8192", "partition": "1", "start": "2048"}),
    ):
        node.mkdir(parents=True)
        (node / "dev").write_text(number)
        for name, text in told.items():
            (node / name).write_text(text)
    (sys / "dev/block" / numbers[1]).symlink_to(whole / "part1")
    return KernelView(sys=sys)


@pytest.mark.parametrize("whole", [True, False], ids=["disk", "partition"])
def test_a_disk_and_its_partition_are_in_each_other_s_way(
    image: Image, loop: Attach, tmp_path: Path, whole: bool
) -> None:
    disk, part = loop(image("disk", 8 * MIB)), loop(image("part", 4 * MIB))
    kernel = partition(tmp_path / "sys", disk, part)
    target, other = (disk, part) if whole else (part, disk)
    with another_process(WRITES, other) as pid, pytest.raises(Refused) as caught:
        guards.not_in_use(devices.measure(target), kernel=kernel)
    assert (caught.value.guard, str(pid) in caught.value.cause) == ("open", True)
    run("mkfs.ext4", "-q", "-F", other)
    with mounted(other, tmp_path / "mnt"), pytest.raises(Refused) as caught:
        guards.not_in_use(devices.measure(target), kernel=kernel)
    assert caught.value.guard == "mounted"
    guards.not_in_use(devices.measure(target), kernel=kernel)


def test_a_mount_in_another_mount_namespace_is_seen(
    source: Path, image: Image, loop: Attach, tmp_path: Path
) -> None:
    target, folder = loop(image("backing", 16 * MIB)), tmp_path / "mnt"
    run("mkfs.ext4", "-q", "-F", target)
    folder.mkdir()
    code = f"import subprocess; subprocess.run(['mount', {str(target)!r}, {str(folder)!r}], check=True)"
    with another_process(code, target, "unshare", "--mount", "--propagation", "private") as pid:
        refusal = refused(source, target)
    assert (refusal.guard, str(pid) in refusal.cause) == ("mounted", True)


def test_each_device_of_a_mounted_btrfs_is_refused(source: Path, loop: Attach, tmp_path: Path) -> None:
    members = []
    for name in ("one", "other"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 120 * MIB)
        members.append(loop(tmp_path / name))
    run("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "single", *members)
    with mounted(members[0], tmp_path / "mnt"):
        for member in members:
            with pytest.raises(Refused) as caught:
                passes.run(PassRequest(source=source, target=member))
            assert caught.value.guard == "mounted"


def test_a_swap_file_is_refused_by_another_name(source: Path, loop: Attach, tmp_path: Path) -> None:
    disk, alias = tmp_path / "disk", "alias"
    disk.touch()
    os.truncate(disk, 64 * MIB)
    run("mkfs.ext4", "-q", "-F", disk)
    with mounted(loop(disk), tmp_path / "mnt") as folder:
        (folder / "swap").write_bytes(bytes(16 * MIB))
        (folder / "swap").chmod(0o600)
        (folder / alias).hardlink_to(folder / "swap")
        run("mkswap", folder / "swap")
        run("swapon", folder / "swap")
        try:
            assert refused(source, folder / alias).guard == "swap"
        finally:
            run("swapoff", folder / "swap")


@pytest.mark.parametrize(
    "told", ["target/core/iblock_0/disk/udev_path", "nvmet/subsystems/a/namespaces/1/device_path"]
)
def test_what_the_kernel_serves_to_others_is_refused(
    image: Image, loop: Attach, tmp_path: Path, told: str
) -> None:
    target = loop(image("backing", SIZE))
    file = tmp_path / "sys/kernel/config" / told
    file.parent.mkdir(parents=True)
    file.write_text(f"{target}\n")
    with pytest.raises(Refused) as caught:
        guards.not_in_use(devices.measure(target), kernel=KernelView(sys=tmp_path / "sys"))
    assert (caught.value.guard, str(file.parent) in caught.value.cause) == ("held", True)


LOCKS = """
import struct
held = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(held, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, {place}, 1, 0))
"""


@pytest.mark.parametrize("place", [101, 201], ids=["writes", "lets nobody write"])
@pytest.mark.parametrize("block", [False, True])
def test_qemu_s_own_locks_refuse_a_target(
    source: Path, image: Image, loop: Attach, place: int, block: bool
) -> None:
    """As of a QEMU whose process cannot be seen, or that has the target as a backing file."""
    target = loop(image("backing", SIZE)) if block else image("target", SIZE)
    with another_process(LOCKS.format(place=place), target):
        refusal = refused(source, target)
    assert (refusal.guard, "QEMU" in refusal.cause) == ("open", True)


def test_a_backing_file_of_a_running_qemu_is_refused(source: Path, image: Image, tmp_path: Path) -> None:
    target, layer = image("target", SIZE), tmp_path / "layer.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", target, layer)
    pid = tmp_path / "pid"
    # Paused: it has its disk, and runs nothing.
    argv = ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-m", "64", "-daemonize"]
    argv += ["-drive", f"file={layer},format=qcow2,if=none,id=a", "-device", "virtio-blk,drive=a"]
    run(*argv, "-pidfile", pid)
    try:
        refusal = refused(source, target)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert (refusal.guard, "QEMU" in refusal.cause) == ("open", True)


def test_no_qemu_writes_to_a_target_that_is_held(image: Image) -> None:
    target = image("target", SIZE)
    argv = ["qemu-io", "-f", "raw", "-c", "write 0 512", str(target)]
    with targets.open_target(devices.measure(target), direct=False):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert "lock" in done.stderr
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0


@contextmanager
def dead_file_system(tmp_path: Path) -> Iterator[Path]:
    """A file of a file system that answers nobody any more: a FUSE whose daemon was stopped."""
    disk, place, ready = tmp_path / "exported", tmp_path / "far.img", tmp_path / "ready"
    disk.write_bytes(bytes(MIB))
    place.touch()
    daemon = subprocess.Popen(
        [
            *("qemu-storage-daemon", "--blockdev", f"driver=file,node-name=a,filename={disk}"),
            *("--export", f"type=fuse,id=b,node-name=a,mountpoint={place},writable=on"),
            *("--pidfile", str(ready)),
        ]
    )
    try:
        while not ready.exists():
            assert daemon.poll() is None
            time.sleep(0.01)
        with another_process(WRITES, place):
            daemon.send_signal(signal.SIGSTOP)
            yield place
            daemon.send_signal(signal.SIGCONT)
    finally:
        daemon.send_signal(signal.SIGCONT)
        daemon.terminate()
        daemon.wait(20)


@pytest.mark.parametrize("block", [False, True])
def test_a_file_system_that_does_not_answer_is_not_waited_for(
    image: Image, loop: Attach, tmp_path: Path, block: bool
) -> None:
    target = loop(image("backing", SIZE)) if block else image("target", SIZE)
    code = "import sys; from pathlib import Path; from blocksync.devices import device as devices, guards\n"
    code += "guards.not_in_use(devices.measure(Path(sys.argv[1])))"
    with dead_file_system(tmp_path):
        subprocess.run([sys.executable, "-c", code, target], check=True, timeout=20)


def test_a_lock_is_gone_with_its_pass(source: Path, image: Image) -> None:
    target = image("target", SIZE)
    passes.run(PassRequest(source=source, target=target))
    with target.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
