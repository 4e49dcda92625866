"""The script that prepares a guest, run in a chroot by this machine's sh, blkid, awk and dpkg."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import chroot_guest
import pytest
from chroot_guest import FSTAB, INITTAB, VERSION, ChrootGuest, initramfs

from orchestrate.guest.prepare import script as prepare
from orchestrate.guest.prepare.script import Line

DEBIAN_LIKE = pytest.mark.skipif(not Path("/usr/bin/dpkg").exists(), reason="the machine has no dpkg")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[ChrootGuest]:
    with chroot_guest.made(tmp_path) as made:
        yield made


def lines(guest: ChrootGuest, *options: str) -> list[Line]:
    done = guest.sh(prepare.script(), *options)
    assert done.returncode == 0, done.stderr
    return [line for line in map(prepare.line, done.stdout.splitlines()) if line]


def kinds(guest: ChrootGuest, *options: str) -> set[str]:
    return {line.kind for line in lines(guest, *options)}


@DEBIAN_LIKE
def test_device_names_become_uuids_and_other_lines_stay(guest):
    lines(guest)
    swap, root = guest.uuids["xvda1"], guest.uuids["xvda2"]
    expected = FSTAB.replace("/dev/xvda1 none", f"UUID={swap} none").replace("/dev/xvda2 /", f"UUID={root} /")
    assert guest.text("etc/fstab") == expected
    assert guest.text("etc/fstab.xen2kvm-before") == FSTAB


@DEBIAN_LIKE
def test_two_devices_with_one_uuid_are_not_named_by_it(guest):
    number = (guest.root / "dev/xvda2").stat().st_rdev
    os.mknod(guest.root / "dev/xvdc2", 0o60600, number)
    rows = [f"{os.major(number)} {os.minor(number)} 8192 {name}" for name in ("xvda2", "xvdc2")]
    guest.write("proc/partitions", "\n".join(("major minor  #blocks  name", "", *rows, "")))
    said = [line.text for line in lines(guest) if line.kind == "keep"]
    assert any("/dev/xvda2" in text and "another device has the same UUID" in text for text in said)
    assert "/dev/xvda2 / ext4" in guest.text("etc/fstab")


@DEBIAN_LIKE
def test_the_serial_console_comes_beside_xens_which_stays_the_last(guest):
    lines(guest)
    assert guest.text("etc/default/grub").endswith(
        'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX console=tty0 console=ttyS0,115200n8 console=hvc0"\n'
    )
    assert guest.text("etc/securetty") == "tty1\nhvc0\nttyS0\n"
    inittab = guest.text("etc/inittab")
    assert inittab.startswith(INITTAB)
    entry = inittab.removeprefix(INITTAB).strip()
    # sysvinit keeps at most 127 characters of a process.
    assert len(entry.split(":", 3)[3]) < 128
    assert "exec /sbin/getty -L ttyS0 115200 vt100" in entry


@DEBIAN_LIKE
def test_a_module_that_misses_its_newline_is_not_joined_with_the_next(guest):
    lines(guest)
    wanted = "# modules\nvirtio_pci\nvirtio_blk\nvirtio_net\n"
    assert guest.text("etc/initramfs-tools/modules") == wanted


@DEBIAN_LIKE
def test_a_guest_that_nobody_could_shut_down_on_kvm_is_named(guest):
    for program in ("usr/sbin/acpid", "usr/bin/dbus-daemon", "usr/bin/dbus-broker"):
        (guest.root / program).unlink(missing_ok=True)
    assert [line.kind for line in lines(guest) if "power button" in line.text] == ["todo"]
    guest.write("usr/sbin/acpid", "#!/bin/sh\n")
    (guest.root / "usr/sbin/acpid").chmod(0o755)
    assert [line.kind for line in lines(guest) if "power button" in line.text] == ["have"]


@DEBIAN_LIKE
def test_run_again_it_changes_nothing(guest):
    lines(guest)
    before = guest.files()
    assert kinds(guest) == {"have", "keep"}
    assert guest.files() == before


@DEBIAN_LIKE
def test_a_dry_run_tells_and_changes_nothing(guest):
    before = guest.files()
    assert "would" in kinds(guest, "--dry-run")
    assert guest.files() == before


@DEBIAN_LIKE
def test_undo_leaves_every_file_as_it_was(guest):
    before = guest.files()
    lines(guest)
    assert guest.files() != before
    lines(guest, "--undo")
    assert guest.files() == before


@DEBIAN_LIKE
def test_undo_leaves_what_somebody_changed_since_and_says_so(guest):
    lines(guest)
    guest.write("etc/fstab", guest.text("etc/fstab") + "# mine\n")
    said = lines(guest, "--undo")
    assert [line.kind for line in said if "/etc/fstab" in line.text] == ["todo"]
    assert guest.text("etc/fstab").endswith("# mine\n")
    assert guest.text("etc/securetty") == "tty1\nhvc0\n"
    assert "/etc/fstab" in guest.text("etc/xen2kvm.prepared")


@DEBIAN_LIKE
def test_the_menu_that_xen_boots_from_is_put_back_when_a_package_changes_it(guest):
    guest.write(f"boot/config-{VERSION}", "CONFIG_X86_64_XEN=y\n")
    guest.write("usr/bin/apt-get", "#!/bin/sh\necho changed > /boot/grub/menu.lst\nexit 100\n")
    (guest.root / "usr/bin/apt-get").chmod(0o755)
    done = guest.sh(prepare.script())
    assert done.returncode == 1
    assert guest.text("boot/grub/menu.lst") == chroot_guest.FILES["boot/grub/menu.lst"]


@DEBIAN_LIKE
def test_an_archive_that_is_gone_is_explained(guest):
    guest.write(f"boot/config-{VERSION}", "CONFIG_X86_64_XEN=y\n")
    subprocess.run(["rm", "-rf", guest.root / "var/lib/apt/lists", guest.root / "etc/apt"], check=True)
    guest.write("etc/apt/sources.list", "deb http://127.0.0.1:9/debian lenny main\n")
    (guest.root / "var/lib/apt/lists/partial").mkdir(parents=True)
    (guest.root / "tmp").mkdir(exist_ok=True)
    done = guest.sh(prepare.script())
    assert done.returncode == 1
    assert "archive of old releases" in done.stderr
    assert guest.text("etc/fstab") == FSTAB


@DEBIAN_LIKE
@pytest.mark.skipif(not shutil.which("cpio"), reason="the machine has no cpio")
@pytest.mark.parametrize("modules", [(), ("virtio_blk",)])
def test_an_initramfs_is_made_anew_only_when_it_lacks_virtio(guest, modules):
    guest.write(f"boot/config-{VERSION}", "CONFIG_VIRTIO_BLK=m\n")
    guest.write(f"boot/initrd.img-{VERSION}", initramfs(*modules))
    (guest.root / f"lib/modules/{VERSION}").mkdir(parents=True)
    said = [line for line in lines(guest, "--dry-run") if "initr" in line.text and VERSION in line.text]
    assert [line.kind for line in said] == (["have"] if modules else ["would"])


def test_a_guest_with_dnf_is_told_its_own_packages(guest):
    for name in ("apt-get", "dpkg"):
        (guest.root / "usr/bin" / name).unlink(missing_ok=True)
    guest.write("usr/bin/dnf", "#!/bin/sh\nexit 1\n")
    (guest.root / "usr/bin/dnf").chmod(0o755)
    guest.write("etc/redhat-release", "CentOS Linux release 8.5.2111\n")
    guest.write(f"boot/config-{VERSION}", "CONFIG_X86_64_XEN=y\n")
    said = lines(guest, "--dry-run")
    assert "install kernel grub2-pc, no boot loader written anywhere" in [line.text for line in said]


def test_a_xen_host_is_no_guest(guest):
    guest.write("proc/xen/capabilities", "control_d\n")
    done = guest.sh(prepare.script())
    assert done.returncode == 1
    assert "Xen host" in done.stderr


def test_an_unknown_option_changes_nothing(guest):
    before = guest.files()
    assert guest.sh(prepare.script(), "--undoo").returncode == 1
    assert guest.files() == before


def test_a_script_that_arrives_cut_short_does_nothing(guest):
    before = guest.files()
    script = prepare.script()
    for length in (len(script) // 3, len(script) // 2, script.rindex("main")):
        guest.sh(script[:length])
    assert guest.files() == before


def test_lines_of_a_guest_cannot_steer_a_terminal():
    assert prepare.line("did: \x1b[2Jcleared") == Line("did", "?[2Jcleared")
    assert prepare.line("Setting up grub-pc ...") is None
