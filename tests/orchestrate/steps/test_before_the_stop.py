"""All that can fail is found while the guest serves: the command is refused, and nothing was stopped."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
import tomlkit
from test_cutover_journal import journal_of
from test_passes_and_cutover import digest

from conftest import FILES, XEN2KVM, SmallGuest, make_ext4

REFUSED = 3


def refused(guest: SmallGuest, xl, *options: str) -> str:
    """A cutover that ends in its first step; what it said. The guest runs, the target is as it was."""
    before = digest(guest.target) if guest.target.exists() else None
    done = guest.step("cutover", *options)
    assert done.returncode in (1, REFUSED), done.stderr
    assert "Traceback" not in done.stderr
    if xl is not None:
        assert xl.running
        assert xl.calls("shutdown") == []
    last = journal_of(guest)["steps"][-1]
    assert (last["step"], last["status"]) == ("check", "failed")
    assert (digest(guest.target) if guest.target.exists() else None) == before
    return done.stderr


def with_root(guest: SmallGuest, files: dict[str, str], *spoil: str) -> None:
    """A guest whose root holds other files, spoilt by debugfs, planned and copied once."""
    make_ext4(guest.volumes["xvda2"], {**files, "srv/.keep": ""})
    assert guest.make_plan().returncode == 0
    commands = "\n".join(spoil)
    debugfs = ["debugfs", "-w", "-f", "-", guest.volumes["xvda2"]]
    subprocess.run(debugfs, input=commands, text=True, check=True, capture_output=True)
    guest.result("sync")


def test_nobody_but_root_is_told_before_anything_is_stopped(small_guest, xl):
    small_guest.make_plan()
    folder = small_guest.folder
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    words = [str(small_guest.plan), f"--job-dir={folder / 'job'}"]
    command = [*nobody, str(XEN2KVM)]
    if subprocess.run([*command, "--help"], capture_output=True, check=False).returncode:
        pytest.skip("nobody cannot run what is installed here")
    synced = subprocess.run([*command, "sync", *words], capture_output=True, text=True, check=False)
    assert synced.returncode == 0, synced.stderr
    done = subprocess.run(
        [*command, "cutover", *words, "--override=not-rehearsed"], capture_output=True, text=True, check=False
    )
    assert done.returncode == REFUSED
    assert "needs root" in done.stderr
    assert xl.running
    assert [entry["step"] for entry in journal_of(small_guest)["steps"]] == ["check"]


@pytest.mark.parametrize(
    "spoil",
    [
        ("symlink /boot/grub /nowhere/grub",),
        ("symlink /boot/grub grub",),
        ("write /etc/hostname /boot/grub",),
        ("mkdir /boot/grub", "cd /boot/grub", "mknod grub.cfg p"),
        ("mkdir /boot/grub", "mkdir /boot/grub/grub.cfg"),
        ("rm /boot/vmlinuz-6.1.0-9-amd64",),
    ],
    ids=["dangling link", "link loop", "file", "FIFO", "folder", "no kernel any more"],
)
def test_a_guest_that_cannot_be_repaired_is_not_stopped(small_guest, xl, spoil):
    with_root(small_guest, FILES, *spoil)
    said = refused(small_guest, xl)
    assert "cannot be repaired" in said
    assert "--override fix-ups" in said


def test_a_guest_that_is_full_is_not_stopped(small_guest, xl):
    with_root(small_guest, {**FILES, "var/full": "x" * (25 * 2**20)})
    assert "No space left on device" in refused(small_guest, xl)


def test_all_that_is_missing_is_told_at_once(planned_guest, xl, tmp_path, monkeypatch):
    planned_guest.result("sync")
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            if program.name not in ("grub-mkimage", "qemu-storage-daemon"):
                (tools / program.name).exists() or (tools / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tools))
    said = refused(planned_guest, xl, f"--xml={tmp_path / 'none' / 'guest.xml'}")
    for word in ("2 things", "grub-mkimage (grub-common)", "qemu-storage-daemon (", "guest.xml", "hint"):
        assert word in said


def test_risks_are_told_together_where_nobody_can_be_asked(small_guest, xl):
    with_root(small_guest, FILES, "symlink /boot/grub /nowhere/grub")
    command = ["cutover", small_guest.plan, f"--job-dir={small_guest.folder / 'job'}"]
    done = small_guest.xen2kvm(*command)
    assert done.returncode == REFUSED
    assert "--override not-rehearsed" in done.stderr
    assert "--override fix-ups" in done.stderr
    assert xl.running


@pytest.mark.parametrize("kind", ["folder", "link", "no folder"])
def test_a_place_for_the_xml_that_is_none_is_found_before_the_stop(planned_guest, xl, kind, tmp_path):
    planned_guest.result("sync")
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
    elif kind == "link":
        place.symlink_to(planned_guest.volumes["xvda3"])
    else:
        place = place / "guest.xml"
    before = digest(planned_guest.volumes["xvda3"])
    done = planned_guest.step("cutover", f"--xml={place}")
    assert done.returncode == 2
    assert xl.running
    assert digest(planned_guest.volumes["xvda3"]) == before


def test_a_check_whose_program_is_not_there_is_found_before_the_stop(planned_guest, xl):
    planned_guest.result("sync")
    planned_guest.plan.write_text(
        planned_guest.plan.read_text() + '\n[[check]]\ncommand = ["no-such-program"]\n'
    )
    assert "no-such-program" in refused(planned_guest, xl, "--start")


def test_holes_that_there_is_no_room_to_fill_are_a_risk(planned_guest, xl, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "room", small], check=True)
    try:
        plan = tomlkit.parse(planned_guest.plan.read_text())
        plan["disk"]["path"] = str(small / "target.raw")
        planned_guest.plan.write_text(tomlkit.dumps(plan))
        planned_guest.result("sync")
        done = planned_guest.step("cutover")
        assert done.returncode == REFUSED
        assert "--override room" in done.stderr
        assert xl.running
    finally:
        subprocess.run(["umount", small], check=True)


def test_volumes_that_are_open_where_nobody_can_ask_xen_are_a_risk(planned_guest):
    planned_guest.result("sync")
    with subprocess.Popen(["sleep", "60"], stdin=planned_guest.volumes["xvda3"].open("r+b")) as holder:
        try:
            said = refused(planned_guest, None)
        finally:
            holder.kill()
    assert "does not seem to be stopped" in said
    assert str(holder.pid) in said
    assert planned_guest.result("cutover")["proofs"]


def test_a_volume_that_is_attached_to_a_loop_device_is_a_risk(planned_guest, loop):
    planned_guest.result("sync")
    device = loop(planned_guest.volumes["xvda3"])
    assert str(device) in refused(planned_guest, None)


def test_volumes_that_are_written_meanwhile_are_a_risk(planned_guest):
    planned_guest.result("sync")
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.2):
            with planned_guest.volumes["xvda3"].open("r+b") as volume:
                volume.seek(20 * 2**20)
                volume.write(os.urandom(512))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        said = refused(planned_guest, None)
    finally:
        over.set()
        writer.join()
    assert "being written" in said


def test_the_fix_ups_are_tried_before_the_stop_and_leave_nothing(planned_guest, xl):
    planned_guest.result("sync")
    xl.is_stubborn()
    before = digest(planned_guest.target)
    done = planned_guest.step("cutover", "--shutdown-timeout=1")
    assert done.returncode == REFUSED
    assert digest(planned_guest.target) == before
    assert not list((planned_guest.folder / "job").glob("overlay-*"))
