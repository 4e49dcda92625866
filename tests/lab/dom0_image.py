"""The Xen host's disk: a Debian with the hypervisor, the toolstack and LVM, booted by multiboot."""

import gzip
import shutil
from pathlib import Path

from lab_places import (
    CACHE,
    DOM0_ADDRESS,
    GATEWAY,
    GROUP,
    GUEST,
    GUEST_ADDRESS,
    GUEST_MAC,
    SUITE,
    admit_ssh,
    mask_slow_units,
    sparse,
    tool,
)

PACKAGES = (
    *("systemd-sysv", "udev", "kmod", "login", "passwd", "procps", "util-linux", "e2fsprogs", "netbase"),
    *("ifupdown", "iproute2", "bridge-utils", "openssh-server", "lvm2", "thin-provisioning-tools"),
    *("linux-image-amd64", "xen-hypervisor-4.17-amd64", "xen-utils-4.17"),
)
DISK_MIB = 3072

_KERNEL, _INITRD, _HYPERVISOR = "vmlinuz", "initrd.img", "xen.elf"
_INTERFACES = f"""\
auto lo
iface lo inet loopback

auto eth0
iface eth0 inet manual

auto xenbr0
iface xenbr0 inet static
  bridge_ports eth0
  bridge_fd 0
  bridge_stp off
  address {DOM0_ADDRESS}/24
  gateway {GATEWAY}
"""


def boot_files() -> tuple[Path, Path, Path]:
    """Hypervisor, kernel and initrd, outside the disk for QEMU's multiboot."""
    return CACHE / _HYPERVISOR, CACHE / _KERNEL, CACHE / _INITRD


def bootstrap_dom0() -> Path:
    """dom0's tree, unless it is there."""
    tree = CACHE / "dom0-tree"
    partial = tree.with_name(tree.name + ".partial")
    if not tree.exists():
        shutil.rmtree(partial, ignore_errors=True)
        tool("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(partial))
        _configure(partial)
        partial.rename(tree)
    return tree


def build_dom0(tree: Path) -> Path:
    """Make dom0's disk and boot files from its tree; the disk's path."""
    _take_boot_files(tree)
    disk = sparse(CACHE / "dom0.img", DISK_MIB)
    tool("mkfs.ext4", "-q", "-L", "dom0", "-d", str(tree), str(disk))
    return disk


def _configure(tree: Path) -> None:
    (tree / "etc/fstab").write_text("/dev/vda / ext4 noatime 0 1\n")
    (tree / "etc/hostname").write_text("dom0\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost dom0\n")
    (tree / "etc/network/interfaces").write_text(_INTERFACES)
    # The toolstack's log of a guest's console: what the guest acknowledged stays readable after its end.
    with (tree / "etc/default/xen").open("a") as defaults:
        defaults.write('XENCONSOLED_ARGS="--log=guest"\n')
    (tree / "var/log/xen/console").mkdir(parents=True)
    (tree / f"etc/xen/{GUEST}.cfg").write_text(guest_config())
    (tree / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
    shutil.rmtree(tree / "var/cache/apt/archives")
    (tree / "var/cache/apt/archives/partial").mkdir(parents=True)
    mask_slow_units(tree)
    admit_ssh(tree, "dom0")


def _take_boot_files(tree: Path) -> None:
    hypervisor, kernel, initrd = boot_files()
    [packed] = (tree / "boot").glob("xen-*-amd64.gz")
    hypervisor.write_bytes(gzip.decompress(packed.read_bytes()))
    [version] = [path.name for path in (tree / "lib/modules").iterdir()]
    shutil.copyfile(tree / f"boot/vmlinuz-{version}", kernel)
    shutil.copyfile(tree / f"boot/initrd.img-{version}", initrd)
    for name in (_KERNEL, _INITRD):
        source = f"{name}-{version}"
        (tree / "boot" / f"{source.replace(version, SUITE)}-xen").symlink_to(source)


def guest_config() -> str:
    """The guest's configuration as xen-tools writes it, with this lab's names."""
    return f"""\
#
# Configuration file for the Xen instance {GUEST}, created
# by xen-tools 4.9.1 on Wed May 19 02:56:03 2021.
#

#
#  Kernel + memory size
#
kernel      = '/boot/vmlinuz-{SUITE}-xen'
extra       = 'elevator=noop'
ramdisk     = '/boot/initrd.img-{SUITE}-xen'

vcpus       = '1'
memory      = '384'

#
#  Disk device(s).
#
root        = '/dev/xvda2 ro'
disk        = [
                  'phy:/dev/{GROUP}/{GUEST}-root,xvda2,w',
                  'phy:/dev/{GROUP}/{GUEST}-swap,xvda1,w',
                  'phy:/dev/{GROUP}/{GUEST}-srv,xvda3,w',
              ]

#
#  Physical volumes
#

#
#  Hostname
#
name        = '{GUEST}'

#
#  Networking
#
vif         = [ 'ip={GUEST_ADDRESS} ,mac={GUEST_MAC.upper()},bridge=xenbr0' ]

#
#  Behaviour
#
on_poweroff = 'destroy'
on_reboot   = 'restart'
on_crash    = 'restart'
"""
