"""The lab's guest as xen-tools makes it: three bare volumes, no bootloader; with the witness in it."""

import shutil
from pathlib import Path

from lab_places import CACHE, GATEWAY, GUEST, GUEST_ADDRESS, GUESTS, admit_ssh, mask_slow_units, sparse, tool
from xen_guest import Recipe, bootstrap

SIZES_MIB = {"swap": 64, "root": 1200, "srv": 256}

_HERE = Path(__file__).parent
_RECIPE = Recipe()
_INTERFACES = f"""\
auto lo
iface lo inet loopback

auto {_RECIPE.nic}
iface {_RECIPE.nic} inet static
  address {GUEST_ADDRESS}/24
  gateway {GATEWAY}
"""


def build_guest(dom0_tree: Path) -> dict[str, Path]:
    """Make the guest's volumes, unless they are there: swap, root and srv to the files that hold them."""
    volumes = {part: CACHE / f"{GUEST}-{part}.img" for part in SIZES_MIB}
    if all(path.exists() for path in volumes.values()):
        return volumes
    tree = _tree(dom0_tree)
    for part, mib in SIZES_MIB.items():
        sparse(volumes[part], mib)
    tool("mkswap", "-q", "-L", "swap", str(volumes["swap"]))
    tool("mkfs.ext4", "-q", "-L", "srv", str(volumes["srv"]))
    tool("mkfs.ext4", "-q", "-L", "root", "-d", str(tree), str(volumes["root"]))
    shutil.rmtree(tree)
    return volumes


def _tree(dom0_tree: Path) -> Path:
    tree = CACHE / f"{GUEST}-tree"
    shutil.rmtree(tree, ignore_errors=True)
    tool("cp", "-a", str(bootstrap(GUESTS, _RECIPE)), str(tree))
    _install_ssh(tree)
    (tree / "etc/hostname").write_text(f"{GUEST}\n")
    (tree / "etc/hosts").write_text(f"127.0.0.1 localhost {GUEST}\n")
    (tree / "etc/network/interfaces").write_text(_INTERFACES)
    mask_slow_units(tree)
    admit_ssh(tree, GUEST)
    _install_witness(tree)
    _copy_front_ends(dom0_tree, tree)
    return tree


def _install_ssh(tree: Path) -> None:
    no_start = tree / "usr/sbin/policy-rc.d"
    no_start.write_text("#!/bin/sh\nexit 101\n")
    no_start.chmod(0o755)
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq")
    tool("chroot", str(tree), *apt, "update")
    tool("chroot", str(tree), *apt, "install", "-y", "--no-install-recommends", "openssh-server")
    tool("chroot", str(tree), "apt-get", "clean")
    shutil.rmtree(tree / "var/lib/apt/lists")
    (tree / "var/lib/apt/lists/partial").mkdir(parents=True)
    no_start.unlink()


def _install_witness(tree: Path) -> None:
    program = tree / "usr/local/sbin/witness"
    shutil.copyfile(_HERE / "witness.sh", program)
    program.chmod(0o755)
    units = tree / "etc/systemd/system"
    shutil.copyfile(_HERE / "witness.service", units / "witness.service")
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "witness.service").symlink_to("../witness.service")


def _copy_front_ends(dom0_tree: Path, tree: Path) -> None:
    """The modules that a guest uses, of the kernel that dom0 boots it with, as xen-tools copies them."""
    [source] = (dom0_tree / "usr/lib/modules").iterdir()
    target = tree / "usr/lib/modules" / source.name
    for module in source.glob("kernel/drivers/*/xen-*front.ko"):
        copy = target / module.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copy)
    for listing in source.glob("modules.[bo]*"):
        shutil.copyfile(listing, target / listing.name)
    tool("chroot", str(tree), "depmod", source.name)
