"""What the kernel is told under KVM, and that nothing of what it was told under Xen is lost unsaid."""

import pytest
from guest_files import FACTS, Files

from orchestrate.plan.arguments import Arguments, chosen
from orchestrate.xen.guest import parse_guest

CONSOLES = ("console=tty0", "console=ttyS0,115200n8")
MENU = "title x\nkernel /boot/vmlinuz ro root=/dev/xvda2 {}\n"


def given(settings: str, files: dict[str, str | bytes] | None = None) -> Arguments:
    text = f"name='x'\nmemory=64\ndisk=['phy:/dev/vg/a,xvda2,w']\n{settings}\n"
    return chosen(parse_guest(text.encode(), "g.cfg"), Files(files or {}), FACTS, ())


def test_a_guest_that_pygrub_starts_keeps_its_own_menus_arguments_and_the_configurations_after_them():
    files: dict[str, str | bytes] = {"/boot/grub/grub.conf": MENU.format("console=hvc0 selinux=0")}
    found = given("bootloader='/usr/bin/pygrub'\nextra='single'", files)
    assert found.words == ("selinux=0", "single", *CONSOLES)


def test_a_guest_with_its_hosts_kernel_has_the_configurations_arguments_alone():
    files: dict[str, str | bytes] = {"/boot/grub/grub.conf": MENU.format("selinux=0")}
    assert given("kernel='/boot/vmlinuz'\nextra='quiet'", files).words == ("quiet", *CONSOLES)


def test_a_boot_loader_without_a_menu_is_told():
    found = given("bootloader='pygrub'")
    assert found.words == CONSOLES
    assert "none was found" in found.left_behind[0]


@pytest.mark.parametrize(
    "word",
    [
        "console=hvc0",
        "xencons=tty",
        "earlyprintk=xen",
        "elevator=noop",
        "clocksource=xen",
        "independent_wallclock=1",
        "iommu=soft",
        "swiotlb=65536",
        "xen-fbfront.video=8,1024,768",
        "xen_emul_unplug=never",
        "xen_blkfront.max=32",
        "netloop.nloopbacks=0",
    ],
)
def test_a_word_of_xens_goes_and_is_named(word):
    found = given(f"kernel='/k'\nextra='quiet {word}'")
    assert found.words == ("quiet", *CONSOLES)
    assert [line for line in found.left_behind if f" {word}, because " in line]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('crashkernel="128M"', ("crashkernel=128M",)),
        ("rw rootflags=subvol=@ ip=192.0.2.5:::255.255.255.0::eth0:off", None),
        ("root=/dev/xvda2 ro BOOT_IMAGE=/vmlinuz initrd=/initrd quiet", ("quiet",)),
    ],
)
def test_what_can_be_carried_is_carried(written, words):
    found = given(f"kernel='/k'\nextra='{written}'")
    assert found.words == (*(words or tuple(written.split())), *CONSOLES)
    assert found.left_behind == ()


@pytest.mark.parametrize("word", ['dyndbg="file x +p"', "memmap=64M$16M", "a;reboot", 'x="never closed'])
def test_what_grub_would_interpret_is_left_out_and_named(word):
    found = given(f"kernel='/k'\ncmdline='quiet {word}'")
    assert found.words == ("quiet", *CONSOLES)
    assert any("GRUB gives" in line and word[:6] in line for line in found.left_behind)
