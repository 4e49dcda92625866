"""The kernel's command line, and the files that hold one."""

import pytest
from guest_files import FACTS, ROOT, SWAP, after, text

from orchestrate.guest.boot.kernel_arguments import for_kvm, without_xen

CONSOLES = "console=tty0 console=ttyS0,115200n8"
DEFAULT = "/etc/default/grub"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", CONSOLES),
        ("ro quiet", f"ro quiet {CONSOLES}"),
        ("console=hvc0", CONSOLES),
        ("console=hvc0 ro  quiet xencons=tty", f"ro  quiet {CONSOLES}"),
        ("ro elevator=noop console=xvc0 single", f"ro single {CONSOLES}"),
        ("root=/dev/xvda2 ro", f"root=UUID={ROOT.uuid} ro {CONSOLES}"),
        ("root=PARTUUID=0b0b0b0b-02 ro", f"root=UUID={ROOT.uuid} ro {CONSOLES}"),
        ("resume=/dev/disk/by-partuuid/0b0b0b0b-01", f"resume=UUID={SWAP.uuid} {CONSOLES}"),
        ("resume=/dev/sda1", f"resume=UUID={SWAP.uuid} {CONSOLES}"),
        ("console=tty0 ro", "console=tty0 ro console=ttyS0,115200n8"),
        ("console=ttyS0 ro", "console=ttyS0 ro"),
        ("console=ttyS1", f"console=ttyS1 {CONSOLES}"),
    ],
)
def test_a_command_line_becomes_one_for_kvm_and_stays_so(before, expected):
    assert for_kvm(before, FACTS) == expected
    assert for_kvm(expected, FACTS) == expected


def test_words_that_are_not_xens_keep_their_order_and_blanks():
    assert without_xen("  a\t b=console=hvc0  c ", FACTS) == "  a\t b=console=hvc0  c "


def test_debians_defaults_lose_xens_words_and_gain_the_serial_console():
    before = """
        GRUB_DEFAULT=0
        GRUB_CMDLINE_LINUX_DEFAULT="quiet console=hvc0"
        GRUB_CMDLINE_LINUX="elevator=noop"  # for Xen
        #GRUB_TERMINAL=console
    """
    assert (text(after("default-grub", {DEFAULT: before}), DEFAULT) or "").splitlines() == [
        "GRUB_DEFAULT=0",
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet"',
        f'GRUB_CMDLINE_LINUX="{CONSOLES}"  # for Xen',
        "#GRUB_TERMINAL=console",
    ]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("GRUB_TIMEOUT=5\n", f'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="{CONSOLES}"\n'),
        ("GRUB_CMDLINE_LINUX=quiet\n", f'GRUB_CMDLINE_LINUX="quiet {CONSOLES}"\n'),
        ("GRUB_CMDLINE_LINUX=''\n", f"GRUB_CMDLINE_LINUX='{CONSOLES}'\n"),
        (
            'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX b"\n',
            f'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX b {CONSOLES}"\n',
        ),
        (
            'GRUB_CMDLINE_LINUX="two\nlines"\n',
            f'GRUB_CMDLINE_LINUX="two\nlines"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {CONSOLES}"\n',
        ),
    ],
)
def test_any_shape_of_the_assignment_ends_with_the_serial_console(before, expected):
    assert text(after("default-grub", {DEFAULT: before}), DEFAULT) == expected


def test_files_of_grub_d_lose_xens_words_and_gain_none():
    cloud = "/etc/default/grub.d/50-cloud.cfg"
    guest = after("default-grub", {cloud: 'GRUB_CMDLINE_LINUX_DEFAULT="console=tty1 console=hvc0"\n'})
    assert text(guest, cloud) == 'GRUB_CMDLINE_LINUX_DEFAULT="console=tty1"\n'
    assert guest.read(DEFAULT) is None


def test_menu_lst_names_the_partition_and_its_automagic_options():
    before = """
        # groot=(hd0)
        # kopt=root=/dev/xvda2 ro console=hvc0
        title Debian
        root (hd0)
        kernel /boot/vmlinuz-2.6.32-5-amd64 root=/dev/xvda2 ro
        initrd /boot/initrd.img-2.6.32-5-amd64
    """
    path = "/boot/grub/menu.lst"
    assert (text(after("legacy-grub", {path: before}), path) or "").splitlines() == [
        "# groot=(hd0,1)",
        f"# kopt=root=UUID={ROOT.uuid} ro {CONSOLES}",
        "title Debian",
        "root (hd0,1)",
        f"kernel /boot/vmlinuz-2.6.32-5-amd64 root=UUID={ROOT.uuid} ro {CONSOLES}",
        "initrd /boot/initrd.img-2.6.32-5-amd64",
    ]


def test_menu_lst_names_the_partition_of_a_boot_volume():
    files = {"/boot/grub/menu.lst": "root (hd0)\n", "/etc/fstab": "/dev/xvda3 /boot ext2 defaults 0 2\n"}
    assert text(after("legacy-grub", files), "/boot/grub/menu.lst") == "root (hd0,2)\n"


def test_boot_loader_entries_and_extlinux_change_in_their_options_only():
    entry, extlinux = "/boot/loader/entries/abc-5.14.conf", "/boot/extlinux/extlinux.conf"
    files = {
        entry: "title Rocky\nlinux /vmlinuz-5.14\noptions $kernelopts console=hvc0\n",
        extlinux: "label l0\n\tlinux /boot/vmlinuz\n\tappend root=/dev/xvda2 ro\n",
        "/etc/kernel/cmdline": "root=/dev/xvda2 console=hvc0\n",
    }
    guest = after("boot-entries", files)
    assert text(guest, entry) == f"title Rocky\nlinux /vmlinuz-5.14\noptions $kernelopts {CONSOLES}\n"
    assert text(guest, extlinux) == (
        f"label l0\n\tlinux /boot/vmlinuz\n\tappend root=UUID={ROOT.uuid} ro {CONSOLES}\n"
    )
    assert text(guest, "/etc/kernel/cmdline") == f"root=UUID={ROOT.uuid} {CONSOLES}\n"


def test_net_ifnames_comes_where_an_initramfs_would_rename_eth0():
    files = {
        DEFAULT: 'GRUB_CMDLINE_LINUX=""\n',
        "/lib/udev/rules.d/80-net-setup-link.rules": "",
        "/etc/network/interfaces": "auto eth0\niface eth0 inet dhcp\n",
    }
    assert text(after("default-grub", files), DEFAULT) == f'GRUB_CMDLINE_LINUX="{CONSOLES} net.ifnames=0"\n'
