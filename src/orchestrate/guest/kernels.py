"""Which kernels a guest brings, and which of them can find a virtio disk."""

import posixpath
import re
from dataclasses import dataclass

from blocksync.errors import Refused
from orchestrate.guest.reading import Reading

GUARD = "no-kernel"
BOOT = "/boot"
_IMAGE = re.compile(r"vmlinu[xz]-(?P<version>[0-9][A-Za-z0-9_.+~-]{0,127})")
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initramfs-{}", "initrd-{}")
_NOT_A_KERNEL = re.compile(r"\.(old|bak|dpkg-\w+|rpmsave|rpmnew|efi\.signed|xen2kvm-orig)$|rescue|kdump")
_XEN_ONLY = re.compile(rb"^CONFIG_X86_(64_)?XEN=y$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the guest: `version` (uname -r), `image` and `initrd` as paths inside the guest."""

    version: str
    image: str
    initrd: str | None


def bootable(guest: Reading) -> tuple[Kernel, ...]:
    """The kernels that boot on a machine with virtio, newest first.

    Left out: kernels for Xen alone (`CONFIG_X86_XEN`, `CONFIG_X86_64_XEN` in /boot/config-VERSION, or by
    their name when there is no config), kernels built without virtio_blk, and kernels that have it as a
    module but no initramfs to carry it.
    """
    names = guest.names(BOOT)
    versions = {
        match["version"]: name
        for name in names
        if (match := _IMAGE.fullmatch(name)) and not _NOT_A_KERNEL.search(name)
    }
    found = []
    for version, name in versions.items():
        initrd = next((form.format(version) for form in _INITRDS if form.format(version) in names), None)
        if _runs_on_virtio(guest.read(f"{BOOT}/config-{version}"), version, has_initrd=initrd is not None):
            found.append(
                Kernel(version, posixpath.join(BOOT, name), posixpath.join(BOOT, initrd) if initrd else None)
            )
    return tuple(sorted(found, key=lambda kernel: version_key(kernel.version), reverse=True))


def _runs_on_virtio(config: bytes | None, version: str, *, has_initrd: bool) -> bool:
    if config is None:
        return has_initrd and "xen" not in version
    if _XEN_ONLY.search(config):
        return False
    if b"\nCONFIG_VIRTIO_BLK=m\n" in config:
        return has_initrd
    return b"\nCONFIG_VIRTIO_BLK=y\n" in config


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders kernel versions as people count: 6.1.0-9 before 6.1.0-10, 6.1-rc1 before 6.1."""
    parts = re.findall(r"\d+|[a-zA-Z~]+", version.replace("-rc", "~rc"))
    return (
        *(
            (3, int(part), "") if part.isdigit() else (0 if part.startswith("~") else 2, 0, part)
            for part in parts
        ),
        (1, 0, ""),
    )


def require(guest: Reading, name: str) -> tuple[Kernel, ...]:
    """`bootable(guest)`, or `Refused` naming the commands that put a kernel into the guest called `name`."""
    kernels = bootable(guest)
    if not kernels:
        present = [entry for entry in guest.names(BOOT) if _IMAGE.fullmatch(entry)]
        cause = "has no kernel in /boot that can boot under KVM" + (
            f" ({', '.join(present)}: for Xen only, or without virtio)" if present else ""
        )
        raise Refused(f"guest {name}", cause, _install_command(guest), guard=GUARD)
    return kernels


def _install_command(guest: Reading) -> str:
    if guest.read("/etc/debian_version") is not None:
        command = "apt-get install linux-image-amd64 grub-pc  (linux-image-686-pae in a 32-bit guest)"
    elif guest.read("/etc/redhat-release") is not None:
        command = "yum install kernel grub2-pc"
    elif guest.read("/etc/SuSE-release") is not None:
        command = "zypper install kernel-default grub2"
    else:
        command = "install your distribution's kernel package"
    return f"run inside the guest, while it is on Xen: {command}"
