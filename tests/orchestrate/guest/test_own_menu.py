"""The entry that the guest boots by itself, in every menu that Xen's boot loaders read."""

import pytest
from guest_files import Files

from orchestrate.guest.boot.own_menu import booted

LEGACY = """\
DEFAULT
timeout 5
title old
\troot (hd0)
\tkernel /boot/vmlinuz-1 root=/dev/xvda1 ro one
title new
\tkernel /boot/vmlinuz-2 root=/dev/xvda1 ro two selinux=0
title Xen
\tkernel /boot/xen-4.1-amd64.gz dom0_mem=512M
\tmodule /boot/vmlinuz-3 root=/dev/xvda1 ro three
\tmodule /boot/initrd-3
"""
SECOND = """\
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="DEFAULT"
fi
function gfxmode {
\tset gfxpayload="${1}"
}
menuentry 'Debian' --class debian $menuentry_id_option 'simple' {
\tlinux\t/boot/vmlinuz-2 root=UUID=abc ro  quiet $vt_handoff
\tinitrd\t/boot/initrd.img-2
}
submenu 'Advanced' $menuentry_id_option 'advanced' {
\tmenuentry 'Debian 2' --class debian $menuentry_id_option 'two' {
\t\tlinux\t/boot/vmlinuz-2 root=UUID=abc ro two
\t}
\tmenuentry 'Debian 1' --class debian --id one {
\t\tlinux16\t/boot/vmlinuz-1 root=UUID=abc ro crashkernel="64M" dyndbg="file a +p"
\t}
}
menuentry "Xen" {
\tmultiboot /boot/xen.gz placeholder dom0_mem=1G
\tmodule /boot/vmlinuz-2 placeholder root=UUID=abc ro under-xen
}
"""


def arguments(files: dict[str, str | bytes], loader: str = "pygrub", menu: str | None = None) -> str | None:
    entry = booted(Files(files), loader, menu)
    return None if entry is None else entry.arguments


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("default 0", "root=/dev/xvda1 ro one"),
        ("default=1", "root=/dev/xvda1 ro two selinux=0"),
        ("default\t2", "root=/dev/xvda1 ro three"),
        ("default saved", "root=/dev/xvda1 ro two selinux=0"),
        ("default 9", "root=/dev/xvda1 ro one"),
        ("#default 2", "root=/dev/xvda1 ro one"),
    ],
)
@pytest.mark.parametrize("name", ["menu.lst", "grub.conf"])
def test_the_default_of_grub_legacy_gives_the_arguments(default, expected, name):
    files: dict[str, str | bytes] = {
        f"/boot/grub/{name}": LEGACY.replace("DEFAULT", default),
        "/boot/grub/default": b"1\n0\n#\n",
    }
    assert arguments(files) == expected


@pytest.mark.parametrize(
    ("default", "environment", "expected"),
    [
        ("0", "", "root=UUID=abc ro quiet"),
        ("Advanced>Debian 2", "", "root=UUID=abc ro two"),
        ("advanced>one", "", 'root=UUID=abc ro crashkernel=64M "dyndbg=file a +p"'),
        ("${saved_entry}", "saved_entry=advanced>two\n", "root=UUID=abc ro two"),
        ("${saved_entry}", "", "root=UUID=abc ro quiet"),
        ("Xen", "", "root=UUID=abc ro under-xen"),
        ("gone", "", "root=UUID=abc ro quiet"),
    ],
)
@pytest.mark.parametrize("loader", ["pygrub", "pv-grub2"])
def test_the_default_of_grub_2_gives_the_arguments(default, environment, expected, loader):
    files: dict[str, str | bytes] = {
        "/boot/grub/grub.cfg": SECOND.replace("DEFAULT", default),
        "/boot/grub/grubenv": f"# GRUB Environment Block\n{environment}####",
    }
    assert arguments(files, loader) == expected


def test_pygrub_counts_through_submenus_and_grub_does_not():
    files: dict[str, str | bytes] = {"/boot/grub2/grub.cfg": SECOND.replace("DEFAULT", "2")}
    assert "crashkernel" in (arguments(files) or "")
    assert arguments(files, "pv-grub2") == "root=UUID=abc ro under-xen"


def test_entries_of_the_boot_loader_specification_are_grubs_menu():
    files: dict[str, str | bytes] = {
        "/boot/grub2/grub.cfg": 'set kernelopts="root=/dev/xvda1 ro from-cfg "\nblscfg\n',
        "/boot/grub2/grubenv": "kernelopts=root=/dev/xvda1 ro from-env\n",
        "/boot/loader/entries/x-4.18.0-80.conf": "title old\nlinux /vmlinuz-4.18.0-80\noptions ro old\n",
        "/boot/loader/entries/x-4.18.0-193.conf": "title new\noptions $kernelopts $tuned_params selinux=0\n",
        "/boot/loader/entries/x-0-rescue.conf": "title rescue\noptions rescue\n",
    }
    assert arguments(files) == "root=/dev/xvda1 ro from-cfg selinux=0"
    files["/boot/grub2/grubenv"] = "saved_entry=x-4.18.0-80\n"
    assert arguments(files) == "ro old"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DEFAULT b\nLABEL a\n APPEND root=x a\nLABEL b\n KERNEL k\n APPEND root=/dev/xvda1 b\n", "b"),
        ("label a\n  append root=/dev/xvda1 a\nlabel b\n  menu default\n  append root=/dev/xvda1 b\n", "b"),
        ("append root=/dev/xvda1 all\nlabel a\n kernel k\n", "all"),
        ("label x\n kernel mboot.c32\n append xen.gz --- vmlinuz root=/dev/xvda1 x --- initrd\n", "x"),
    ],
)
def test_the_default_label_of_extlinux_gives_the_arguments(text, expected):
    assert arguments({"/boot/extlinux.conf": text}) == f"root=/dev/xvda1 {expected}"


def test_pygrub_reads_grub_2_before_legacy_and_pv_grub_the_file_that_it_is_told():
    files: dict[str, str | bytes] = {
        "/boot/grub/grub.cfg": SECOND.replace("DEFAULT", "0"),
        "/boot/grub/menu.lst": LEGACY.replace("DEFAULT", "default 1"),
        "/boot/own.lst": LEGACY.replace("DEFAULT", "default 0"),
    }
    assert arguments(files) == "root=UUID=abc ro quiet"
    assert arguments(files, "pv-grub") == "root=/dev/xvda1 ro two selinux=0"
    assert arguments(files, "pv-grub", "(hd0)/boot/own.lst") == "root=/dev/xvda1 ro one"


def test_without_a_menu_what_makes_the_next_one_counts():
    text = 'GRUB_CMDLINE_LINUX="selinux=0"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
    assert arguments({"/etc/default/grub": text}) == "selinux=0 quiet"
    assert arguments({}) is None
