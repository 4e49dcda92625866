"""`xen2kvm prepare` over a real sshd, whose commands run in a chroot."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import chroot_guest
import pytest
from chroot_guest import FSTAB, ChrootGuest
from sshd import make_keys, start, stop

XEN2KVM = Path(sys.executable).parent / "xen2kvm"
USAGE = 2
BOOT_ID = "proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class FarGuest:
    """A guest that `ssh xenhost` reaches."""

    chroot: ChrootGuest
    environment: dict[str, str]

    def prepare(self, *options: str) -> subprocess.CompletedProcess[str]:
        argv = [str(XEN2KVM), "prepare", "root@xenhost", *options]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=self.environment)

    def reboots(self, *, with_mounts: str) -> None:
        """Let `shutdown` end a boot and begin another one a second later."""
        self.chroot.write(BOOT_ID, "first\n")
        self.chroot.write("proc/mounts", "/dev/xvda2 / ext4 rw 0 0\n/dev/xvda3 /srv ext4 rw 0 0\n")
        self.chroot.write("proc/swaps", "Filename Type Size Used Priority\n/dev/xvda1 partition 8 0 -2\n")
        self.chroot.write("after", with_mounts)
        script = f"#!/bin/sh\nsleep 1\ncat /after > /proc/mounts\necho second > /{BOOT_ID}\n"
        # The first of the names on PATH, whatever the machine has.
        for place in ("usr/local/sbin/shutdown", "usr/sbin/shutdown"):
            (self.chroot.root / place).unlink(missing_ok=True)
            self.chroot.write(place, script)
            (self.chroot.root / place).chmod(0o755)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarGuest]:
    with chroot_guest.made(tmp_path) as chroot:
        keys = tmp_path / "keys"
        keys.mkdir()
        inside = f'ForceCommand exec chroot {chroot.root} sh -c "$SSH_ORIGINAL_COMMAND"\n'
        server = start(tmp_path / "sshd", make_keys(keys), more=inside)
        ssh = tmp_path / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {server.config} "$@"\n')
        ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
        try:
            yield FarGuest(chroot, {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
        finally:
            stop(server)


def test_a_far_guest_is_prepared_reported_and_put_back(far):
    done = far.prepare("--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert any(line["kind"] == "did" and "/etc/fstab" in line["text"] for line in report["lines"])
    assert far.chroot.uuids["xvda2"] in far.chroot.text("etc/fstab")
    assert far.prepare("--undo").returncode == 0
    assert far.chroot.text("etc/fstab") == FSTAB


def test_a_dry_run_over_ssh_changes_nothing(far):
    before = far.chroot.files()
    done = far.prepare("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would: change /etc/fstab" in done.stdout
    assert far.chroot.files() == before


def test_a_reboot_is_over_when_another_boot_answers_with_every_mount(far):
    far.reboots(with_mounts="/dev/xvda2 / ext4 rw 0 0\n/dev/xvda3 /srv ext4 rw 0 0\n")
    done = far.prepare("--reboot", "--yes", "--json", "--timeout=60")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reboot"]["kernel"] == os.uname().release


def test_a_file_system_that_stays_away_after_the_reboot_is_named(far):
    far.reboots(with_mounts="/dev/xvda2 / ext4 rw 0 0\n")
    done = far.prepare("--reboot", "--yes", "--timeout=6")
    assert done.returncode == 4
    assert "/srv" in done.stderr


def test_what_the_script_complains_of_is_the_error(far):
    far.chroot.write("proc/xen/capabilities", "control_d\n")
    done = far.prepare()
    assert done.returncode == 1
    assert "Xen host" in done.stderr


@pytest.mark.parametrize("argv", [[], ["root@web1", "--reboot", "--dry-run"], ["-oProxyCommand=x"]])
def test_a_guest_must_be_named_and_options_must_fit(argv):
    done = subprocess.run([XEN2KVM, "prepare", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == USAGE


def test_the_printed_script_is_what_a_shell_can_read():
    done = subprocess.run([XEN2KVM, "prepare", "--print"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n"], input=done.stdout, text=True, check=True)
