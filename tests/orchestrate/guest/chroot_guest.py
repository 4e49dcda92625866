"""A guest to change: this machine's programs under a guest's files, in a folder to be chrooted into."""

import contextlib
import gzip
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION = "6.1.0-9-amd64"
FSTAB = """\
/dev/xvda1 none swap sw 0 0
/dev/xvda2 / ext4 noatime,errors=remount-ro 0 1
# /dev/xvda2 is the root
/dev/xvdb1 /gone ext4 noauto 0 0
proc /proc proc defaults 0 0
"""
INITTAB = "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 hvc0\n"
FILES = {
    "etc/fstab": FSTAB,
    "etc/inittab": INITTAB,
    "etc/securetty": "tty1\nhvc0\n",
    "etc/default/grub": "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=quiet\n",
    "etc/initramfs-tools/modules": "# modules\nvirtio_pci",
    f"boot/vmlinuz-{VERSION}": "kernel\n",
    f"boot/config-{VERSION}": "CONFIG_VIRTIO_BLK=y\n",
    "boot/grub/menu.lst": "default 0\ntitle as Xen boots it\n",
    "var/lib/dpkg/status": "Package: grub-pc\nStatus: install ok installed\nArchitecture: amd64\n"
    "Maintainer: nobody <nobody@example.org>\nVersion: 2.06-13\nDescription: GRUB\n",
    "proc/partitions": "major minor  #blocks  name\n\n",
    "proc/cmdline": "root=/dev/xvda2 ro console=hvc0\n",
}


@dataclass(frozen=True, slots=True)
class ChrootGuest:
    """`root` is its `/`; `uuids` are those of its devices, by their names."""

    root: Path
    uuids: dict[str, str]

    def sh(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        argv = ["chroot", str(self.root), "sh", "-s", "--", *options]
        return subprocess.run(argv, input=script, capture_output=True, text=True, check=False)

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def write(self, path: str, content: str | bytes) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    def files(self) -> dict[str, bytes]:
        """Every file of what a guest's preparation may touch."""
        folders = ("etc", "boot")
        paths = [path for folder in folders for path in (self.root / folder).rglob("*") if path.is_file()]
        return {
            str(path.relative_to(self.root)): path.read_bytes() for path in paths if not path.is_symlink()
        }


@contextlib.contextmanager
def made(folder: Path) -> Iterator[ChrootGuest]:
    """The guest in an empty folder; mounts and loop devices go away with it."""
    with contextlib.ExitStack() as stack:
        layer, root = folder / "layer", folder / "root"
        for each in (layer, root):
            each.mkdir()
        _mount(stack, layer, "tmpfs", "size=256m")
        for each in (layer / "upper", layer / "work"):
            each.mkdir()
        _mount(stack, root, "overlay", f"lowerdir=/,upperdir={layer}/upper,workdir={layer}/work")
        _hide_the_machines_boot(root)
        uuids = {
            "xvda1": _device(stack, root, folder / "swap.img", "xvda1", ["mkswap", "-q"]),
            "xvda2": _device(stack, root, folder / "root.img", "xvda2", ["mkfs.ext4", "-q", "-F"]),
        }
        guest = ChrootGuest(root, uuids)
        null = root / "dev/null"
        null.unlink(missing_ok=True)
        os.mknod(null, 0o20666, os.makedev(1, 3))
        init = root / "sbin/init"
        init.unlink(missing_ok=True)
        init.write_text("not systemd\n")
        for path, content in FILES.items():
            guest.write(path, content)
        yield guest


def initramfs(*modules: str) -> bytes:
    """A gzipped cpio archive with these files below lib/modules."""
    names = [f"lib/modules/{VERSION}/{name}.ko" for name in modules]
    archive = b"".join(_member(name) for name in (*names, "TRAILER!!!"))
    return gzip.compress(archive)


def _member(name: str) -> bytes:
    """A member without content, after cpio(5), "new ASCII format"."""
    fields = [0] * 13
    fields[1], fields[4], fields[11] = 0o100644, 1, len(name) + 1
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    whole = header + name.encode() + b"\0"
    return whole + bytes(-len(whole) % 4)


def _mount(stack: contextlib.ExitStack, place: Path, kind: str, options: str) -> None:
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(place)], check=True)
    stack.callback(subprocess.run, ["umount", str(place)], check=True)


def _hide_the_machines_boot(root: Path) -> None:
    for folder in ("boot", "etc/dracut.conf.d", "etc/initramfs-tools"):
        subprocess.run(["rm", "-rf", str(root / folder)], check=True)
    (root / "boot").mkdir()


def _device(stack: contextlib.ExitStack, root: Path, image: Path, name: str, make: list[str]) -> str:
    subprocess.run(["truncate", "-s", "8M", str(image)], check=True)
    subprocess.run([*make, str(image)], check=True)
    loop = _printed("losetup", "--find", "--show", str(image))
    stack.callback(subprocess.run, ["losetup", "--detach", loop], check=True)
    os.mknod(root / "dev" / name, 0o60600, Path(loop).stat().st_rdev)
    return _printed("blkid", "-p", "-o", "value", "-s", "UUID", str(image))


def _printed(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
