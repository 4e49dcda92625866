"""What holds for every fix-up, whatever the guest's files contain."""

import os

import pytest
from guest_files import FACTS, MAC, Files
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksync.errors import Usage
from orchestrate.guest.files.edit import Edit, Edited
from orchestrate.guest.fixups.fixup import ALL, Fixup, by_name, planned

PATHS = (
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/initramfs-tools/conf.d/resume",
    "/etc/initramfs-tools/modules",
    "/etc/uswsusp.conf",
    "/etc/dracut.conf.d/a.conf",
    "/etc/sysconfig/kernel",
    "/etc/network/interfaces",
    "/etc/netplan/a.yaml",
    "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "/etc/systemd/network/a.network",
    "/etc/systemd/network/a.link",
    "/lib/udev/rules.d/80-net-setup-link.rules",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/udev/rules.d/z25_persistent-net.rules",
    "/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service",
    "/etc/inittab",
    "/etc/init/hvc0.conf",
    "/etc/event.d/tty1",
    "/etc/securetty",
    "/etc/default/grub",
    "/etc/default/grub.d/a.cfg",
    "/boot/grub/menu.lst",
    "/boot/loader/entries/a.conf",
    "/etc/kernel/cmdline",
    "/boot/grub/device.map",
    "/var/cache/debconf/config.dat",
    "/etc/modprobe.conf",
    "/etc/modprobe.d/a",
    "/etc/lvm/lvm.conf",
    "/etc/lvm/cache/.cache",
    "/etc/blkid.tab",
    "/etc/cloud/cloud.cfg.d/a.cfg",
    "/etc/selinux/config",
)

# Lines and fragments that the rules look for, so that arbitrary files reach them.
FRAGMENTS = (
    b"/dev/xvda2 / ext3 defaults 0 1",
    b"/dev/xvda1 none swap sw 0 0",
    b"swap /dev/xvda1 /dev/urandom swap",
    b"PARTUUID=0b0b-02 / ext4 defaults 0 1",
    b"/dev/disk/by-partuuid/0b0b-01 none swap sw 0 0",
    b"SELINUX=enforcing",
    b"/dev/hdc /cd iso9660 ro 0 0",
    b"1:2345:respawn:/sbin/getty 38400 hvc0",
    b"co:2345:respawn:/sbin/agetty xvc0 9600 vt100-nav",
    b"#2:23:respawn:/sbin/getty 38400 tty2",
    b"#T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100",
    b"T0:3:respawn:/sbin/getty hvc0 ttyS0",
    b'GRUB_CMDLINE_LINUX="console=hvc0"',
    b"GRUB_CMDLINE_LINUX=quiet elevator=noop",
    b"GRUB_CMDLINE_LINUX_DEFAULT=\"resume=/dev/xvda1 '",
    b"kernel /vmlinuz root=/dev/xvda2 console=hvc0",
    b"# kopt=root=/dev/xvda2 ro",
    b"# groot=(hd0)",
    b"root (hd0)",
    b"options root=/dev/xvda2",
    b"(hd0) /dev/xvda",
    b"Name: grub-pc/install_devices",
    b"Value: /dev/xvda",
    b"RESUME=/dev/xvda1",
    b"RESUME=PARTUUID=0b0b-01",
    b"resume device = /dev/xvda1",
    b"alias eth0 xennet",
    b'filter = [ "a|xvd|" ]',
    b'INITRD_MODULES="xennet"',
    b"iface eth0 inet dhcp",
    b"ethernets:",
    b"  eth0:",
    b"DEVICE=eth0",
    b"Name=eth0",
    b"MACAddress=" + MAC.encode(),
    b'ATTR{address}=="' + MAC.encode() + b'", NAME="eth0"',
    b'DRIVERS=="vif", ATTR{address}=="' + MAC.encode() + b'", NAME="lan0"',
    b'ATTR{address}=="00:00:00:00:00:00", NAME="eth0"',
    b"exec /sbin/getty -8 38400 hvc0",
)

pieces = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.sampled_from([b"\n", b"\r\n", b" ", b"#", b"\t", b"\\\n"]),
    st.binary(max_size=12),
)
contents = st.lists(pieces, max_size=12).map(b"".join)
guests = st.dictionaries(st.sampled_from(PATHS), contents, max_size=8).map(Files)

# There are many fix-ups: each one's share of the time is small.
few = settings(max_examples=int(os.environ.get("XEN2KVM_EXAMPLES", "40")), deadline=None)
each = pytest.mark.parametrize("fixup", ALL, ids=lambda fixup: fixup.name)


@each
@few
@given(guest=guests)
def test_planned_over_its_own_result_a_fixup_has_nothing_to_do(fixup: Fixup, guest: Files):
    done = Edited(guest, fixup.edits(guest, FACTS))
    assert fixup.edits(done, FACTS) == ()


@few
@given(guest=guests)
def test_planned_over_the_result_of_all_none_has_anything_to_do(guest: Files):
    done = Edited(guest, planned(guest, FACTS))
    assert planned(done, FACTS) == ()


@each
@few
@given(guest=guests)
def test_an_edit_changes_something_and_says_why(fixup: Fixup, guest: Files):
    for edit in fixup.edits(guest, FACTS):
        assert edit.content != guest.read(edit.path) or edit.content is None
        assert edit.path.startswith("/") and edit.reason == fixup.reason


MARKED = "# a comment of somebody's, caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1")


@each
@few
@given(
    path=st.sampled_from(PATHS),
    lines=st.lists(st.sampled_from([*FRAGMENTS, b"", b"  "]), max_size=8),
    end=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
)
def test_comments_bytes_and_line_ends_of_others_survive(
    fixup: Fixup, path: str, lines, end: bytes, last: bool
):
    content = end.join([MARKED, *lines, MARKED]) + (end if last else b"")
    for edit in fixup.edits(Files({path: content}), FACTS):
        if edit.path == path and edit.content is not None:
            assert edit.content.startswith(MARKED + end)
            assert edit.content.count(MARKED) == 2
            assert edit.content.endswith(end) == last
            assert edit.content.count(b"\n") == edit.content.count(end)


def test_a_later_fixup_sees_what_an_earlier_one_left():
    append = Fixup("one", "r", lambda guest, facts: (Edit("/a", (guest.read("/a") or b"") + b"1", "r"),))
    assert [edit.content for edit in planned(Files({}), FACTS, [append, append])] == [b"1", b"11"]


def test_names_are_unique_and_an_unknown_one_is_a_usage_error():
    assert len({fixup.name for fixup in ALL}) == len(ALL)
    assert by_name("fstab").name == "fstab"
    with pytest.raises(Usage, match="no fix-up has this name"):
        by_name("fstabs")
