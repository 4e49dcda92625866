"""What a guest wrote on KVM comes back into its Xen volumes without the fix-ups, here and on another host."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sshd import make_keys, start, stop

from blocksync.errors import Refused
from blocksync.transports.reach import Reach
from orchestrate.copying.source import Here, opened
from orchestrate.handover import send_back
from orchestrate.handover.send_back import GiveBackReport
from orchestrate.job.folder import Job
from orchestrate.job.send_back_mark import is_torn, refuse_torn
from orchestrate.job.stopwatch import Stopwatch
from orchestrate.plan.file import load

MIB = 2**20
SCRIPT = """
import sys
from pathlib import Path
from orchestrate.job.folder import Job
from orchestrate.plan.file import load
from orchestrate.copying.source import Here
from orchestrate.handover import send_back as give_back
from orchestrate.job.stopwatch import Stopwatch
job = Job(Path(sys.argv[1]), load(Path(sys.argv[2])))
def tasks(name):
    print(name, flush=True)
    return lambda progress: None
give_back.run(job, Here(), tasks, Stopwatch())
"""


def quiet(name: str):
    return lambda progress: None


def job_of(guest) -> Job:
    return Job(guest.folder / "job", load(guest.plan))


def given_back(guest, source=None) -> GiveBackReport:
    return send_back.run(job_of(guest), source or Here(), quiet, Stopwatch())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def place(guest, device: str) -> tuple[int, int]:
    plan = tomllib.loads(guest.plan.read_text())
    row = next(row for row in plan["volume"] if row["device"] == device)
    return row["partition"]["offset"], row["size"]


@contextmanager
def files_of(folder: Path, image: Path, offset: int = 0, size: int | None = None) -> Iterator[Path]:
    """The files of an ext4 inside an image."""
    where = folder / "mountpoint"
    where.mkdir(exist_ok=True)
    span = f"loop,offset={offset}" + (f",sizelimit={size}" if size else "")
    subprocess.run(["mount", "-t", "ext4", "-o", span, image, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.fixture
def moved_guest(planned_guest):
    """A guest that was cut over and has worked on KVM since."""
    planned_guest.result("sync")
    planned_guest.result("cutover")
    with files_of(planned_guest.folder, planned_guest.target, *place(planned_guest, "xvda2")) as root:
        assert "UUID=" in (root / "etc/fstab").read_text()
        (root / "etc/motd").write_text("written on KVM\n")
    with files_of(planned_guest.folder, planned_guest.target, *place(planned_guest, "xvda3")) as srv:
        (srv / "data").write_text("served by KVM\n")
        (srv / "large").write_bytes(os.urandom(2 * MIB))
    return planned_guest


@pytest.fixture
def over_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The volumes as another host has them, behind a real sshd."""
    for name in ("keys", "bin"):
        (tmp_path / name).mkdir()
    server = start(tmp_path / "sshd", make_keys(tmp_path / "keys"))
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {server.config} "$@"\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    with opened("xenhost", Reach()) as source:
        yield source
    stop(server)


def is_as_on_kvm(guest) -> bool:
    """Whether the Xen volumes have KVM's files and none of the fix-ups."""
    with files_of(guest.folder, guest.volumes["xvda2"]) as root:
        kept = [path for path in root.rglob("*") if "xen2kvm" in path.name]
        fstab = (root / "etc/fstab").read_text()
        motd = (root / "etc/motd").read_text()
        boot = sorted(path.name for path in (root / "boot").iterdir())
    with files_of(guest.folder, guest.volumes["xvda3"]) as srv:
        served = (srv / "data").read_text()
    assert fstab.startswith("/dev/xvda1 none swap sw 0 0\n/dev/xvda2 / ext4")
    assert boot == ["initrd.img-6.1.0-9-amd64", "vmlinuz-6.1.0-9-amd64"]
    return (kept, motd, served) == ([], "written on KVM\n", "served by KVM\n")


@pytest.mark.parametrize("where", ["here", "far"])
def test_the_volumes_get_what_the_guest_wrote_and_lose_the_fixups(
    moved_guest, request: pytest.FixtureRequest, where: str
) -> None:
    source = Here() if where == "here" else request.getfixturevalue("over_ssh")
    target, swap = digest(moved_guest.target), digest(moved_guest.volumes["xvda1"])
    report = given_back(moved_guest, source)
    assert (digest(moved_guest.target), digest(moved_guest.volumes["xvda1"])) == (target, swap)
    assert set(report.proofs) == {"xvda2", "xvda3"}
    assert "/etc/fstab" in report.restored
    written = {one.volume.device: one.report.bytes_written for one in report.passes}
    # Only what differs: not the whole volumes of 32 MiB.
    assert 0 < written["xvda2"] < 8 * MIB
    assert 2 * MIB <= written["xvda3"] < 8 * MIB
    assert not is_torn(job_of(moved_guest).folder)
    assert is_as_on_kvm(moved_guest)


def test_doing_it_again_writes_only_the_journal_of_undoing_and_leaves_the_same(moved_guest) -> None:
    given_back(moved_guest)
    again = {one.volume.device: one.report.bytes_written for one in given_back(moved_guest).passes}
    assert (again["xvda2"] < 8 * MIB, again["xvda3"]) == (True, 0)
    assert is_as_on_kvm(moved_guest)


def test_a_target_that_is_no_guest_s_disk_is_refused_and_nothing_written(planned_guest) -> None:
    planned_guest.result("sync")
    before = {name: digest(path) for name, path in planned_guest.volumes.items()}
    with pytest.raises(Refused) as caught:
        given_back(planned_guest)
    assert caught.value.guard == "not-handed-over"
    assert {name: digest(path) for name, path in planned_guest.volumes.items()} == before
    assert not is_torn(job_of(planned_guest).folder)


def test_a_volume_in_use_is_refused_and_stays_marked_until_it_is_done(moved_guest) -> None:
    with moved_guest.volumes["xvda3"].open("r+b"), pytest.raises(Refused) as caught:
        given_back_beside(moved_guest)
    assert caught.value.guard == "open"
    assert is_torn(job_of(moved_guest).folder)
    given_back(moved_guest)
    assert not is_torn(job_of(moved_guest).folder)
    assert is_as_on_kvm(moved_guest)


def given_back_beside(guest) -> None:
    """As `given_back`, while this process holds a volume open: guards overlook the process that asks."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, guest.folder / "job", guest.plan],
        capture_output=True,
        text=True,
        check=False,
    )
    if "open for writing" in done.stderr:
        raise Refused("a volume", done.stderr, guard="open")
    assert done.returncode == 0, done.stderr


def test_killed_in_the_middle_the_volumes_are_marked_as_torn_and_the_next_run_goes_on(moved_guest) -> None:
    command = [sys.executable, "-c", SCRIPT, str(moved_guest.folder / "job"), str(moved_guest.plan)]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line == "xvda3\n":
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    with pytest.raises(Refused, match="half written"):
        refuse_torn(job_of(moved_guest))
    given_back(moved_guest)
    refuse_torn(job_of(moved_guest))
    assert is_as_on_kvm(moved_guest)
    assert attached_below(moved_guest.folder) == []


def attached_below(folder: Path) -> list[str]:
    """Loop devices on files of a folder, once those that go by themselves had time to."""
    for _ in range(50):
        command = ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        left = [line for line in found.stdout.splitlines() if str(folder) in line]
        if not left:
            break
        time.sleep(0.1)
    return left
