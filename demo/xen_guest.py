"""A paravirtual Xen guest as xen-tools makes it: bare volumes, no partition table, no boot loader.

The volumes are files here. The guest is a real Debian from debootstrap, with the kernel and GRUB packages
that an operator installs before the move, and with a configuration that only fits Xen: fstab names
/dev/xvdaN, the console is on hvc0, the network card is called as under Xen.
"""

import fcntl
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
PASSWORD = "xen2kvm"
MAC = "00:16:3e:5e:ed:01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What kind of guest: Debian suite, init system, kernel package; sizes of its volumes in MiB."""

    suite: str = "bookworm"
    init: str = "systemd-sysv"
    kernel: str = "linux-image-cloud-amd64"
    srv_filesystem: str = "ext4"
    root_mib: int = 1200
    srv_mib: int = 64
    swap_mib: int = 64

    @property
    def packages(self) -> str:
        """Packages on top of debootstrap's minbase."""
        return f"{self.init},{self.kernel},grub-pc,udev,ifupdown,iproute2,kmod,login,passwd,e2fsprogs"

    @property
    def nic(self) -> str:
        """What this guest's kernel and udev call a Xen NIC: enX0 with systemd 251 and later, else eth0."""
        return "eth0" if self.suite == "bullseye" or self.init == "sysvinit-core" else "enX0"


@dataclass(frozen=True, slots=True, kw_only=True)
class XenGuest:
    """A guest made by `build`: its configuration file and its volumes by their configured device."""

    config: Path
    volumes: dict[str, Path]

    @property
    def volume_options(self) -> list[str]:
        """`--volume` options for `xen2kvm plan`."""
        return [f"--volume={device}={path}" for device, path in self.volumes.items()]


def build(folder: Path, cache: Path, recipe: Recipe, name: str = "demo") -> XenGuest:
    """Make the guest's volumes in `folder`; the debootstrap tree is kept in `cache` for the next one."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = bootstrap(cache, recipe)
    volumes = {f"/dev/vg0/{name}-{part}": folder / f"{name}-{part}.img" for part in ("swap", "root", "srv")}
    swap, root, srv = volumes.values()
    _volume(root, recipe.root_mib)
    run("mkfs.ext4", "-q", "-L", "root", "-d", str(tree), str(root))
    _volume(swap, recipe.swap_mib)
    run("mkswap", "-q", "-L", "swap", str(swap))
    _srv(srv, recipe)
    config = folder / f"{name}.cfg"
    config.write_text(xen_tools_config(name, recipe))
    return XenGuest(config=config, volumes=volumes)


def bootstrap(cache: Path, recipe: Recipe) -> Path:
    """The guest's tree, from the cache if it is there whole; another who makes the same one is waited for."""
    tree = cache / f"{recipe.suite}-{recipe.init}-{recipe.kernel}"
    cache.mkdir(parents=True, exist_ok=True)
    with tree.with_name(tree.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _bootstrap(tree, recipe)
    return tree


def _bootstrap(tree: Path, recipe: Recipe) -> None:
    partial = tree.with_name(tree.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    exclude = ["--exclude=systemd-sysv"] if recipe.init != "systemd-sysv" else []
    include = f"--include={recipe.packages}"
    run("debootstrap", "--variant=minbase", include, *exclude, recipe.suite, str(partial))
    _as_xen_tools_does(partial, recipe)
    partial.rename(tree)


def _as_xen_tools_does(tree: Path, recipe: Recipe) -> None:
    (tree / "etc/fstab").write_text(
        "# /etc/fstab: static file system information.\n"
        "proc            /proc           proc    defaults        0       0\n"
        "/dev/xvda1 none swap sw 0 0\n"
        "/dev/xvda2 / ext4 noatime,nodiratime,errors=remount-ro 0 1\n"
        f"/dev/xvda3 /srv {recipe.srv_filesystem} defaults 0 2\n"
    )
    (tree / "etc/hostname").write_text("demo\n")
    (tree / "etc/network/interfaces").write_text(
        "auto lo\niface lo inet loopback\n\n"
        f"auto {recipe.nic}\niface {recipe.nic} inet static\n  address 192.0.2.10/24\n"
    )
    if recipe.init == "sysvinit-core":
        _hvc0_in_inittab(tree / "etc/inittab")
    else:
        wants = tree / "etc/systemd/system/getty.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / "serial-getty@hvc0.service").symlink_to("/lib/systemd/system/serial-getty@.service")
    with (tree / "etc/securetty").open("a") as securetty:
        securetty.write("xvc0\nhvc0\n")
    shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)
    (tree / "var/cache/apt/archives/partial").mkdir(parents=True)
    run("chroot", str(tree), "chpasswd", text=f"root:{PASSWORD}\n")


def _hvc0_in_inittab(inittab: Path) -> None:
    lines = inittab.read_text().splitlines()
    for index, line in enumerate(lines):
        if line.startswith("1:"):
            lines[index] = "1:2345:respawn:/sbin/getty 38400 hvc0"
        elif line[:2] in {"2:", "3:", "4:", "5:", "6:"} and "respawn" in line:
            lines[index] = "#" + line
    inittab.write_text("\n".join(lines) + "\n")


def _srv(path: Path, recipe: Recipe) -> None:
    content = path.with_suffix(".tree")
    content.mkdir(exist_ok=True)
    (content / "greeting").write_text("served from a volume of its own\n")
    _volume(path, recipe.srv_mib)
    if recipe.srv_filesystem == "ext4":
        run("mkfs.ext4", "-q", "-L", "srv", "-d", str(content), str(path))
    else:
        run("mkfs." + recipe.srv_filesystem, "-q", str(path))
    shutil.rmtree(content)


def _volume(path: Path, mib: int) -> None:
    with path.open("wb") as volume:
        volume.truncate(mib * MIB)


def xen_tools_config(name: str, recipe: Recipe) -> str:
    """The configuration file that xen-tools writes for such a guest."""
    return f"""\
#
# Configuration file for the Xen instance {name}, created
# by xen-tools 4.9.1 on Wed May 19 02:56:03 2021.
#

#
#  Kernel + memory size
#
kernel      = '/boot/vmlinuz-{recipe.suite}-xen'
extra       = 'elevator=noop'
ramdisk     = '/boot/initrd.img-{recipe.suite}-xen'

vcpus       = '1'
memory      = '512'

#
#  Disk device(s).
#
root        = '/dev/xvda2 ro'
disk        = [
                  'phy:/dev/vg0/{name}-root,xvda2,w',
                  'phy:/dev/vg0/{name}-swap,xvda1,w',
                  'phy:/dev/vg0/{name}-srv,xvda3,w',
              ]

#
#  Physical volumes
#

#
#  Hostname
#
name        = '{name}'

#
#  Networking
#
vif         = [ 'ip=192.0.2.10 ,mac={MAC.upper()},bridge=xenbr0' ]

#
#  Behaviour
#
on_poweroff = 'destroy'
on_reboot   = 'restart'
on_crash    = 'restart'
"""


def run(*argv: str, text: str | None = None) -> None:
    """Run a tool; what it printed is shown if it fails."""
    done = subprocess.run(
        argv, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed ({done.returncode}):\n{done.stdout[-4000:]}")
