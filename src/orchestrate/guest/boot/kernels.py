"""Which kernels a guest brings, and which of them can find a virtio disk."""

import posixpath
import re
from dataclasses import dataclass

from blocksync.errors import Refused
from orchestrate.guest.files.reading import Reading

GUARD = "no-kernel"
BOOT = "/boot"
# Gentoo's genkernel says kernel-; Arch, Alpine and Slackware name a flavour in place of the version.
_IMAGE = re.compile(r"(?:vmlinu[xz]|kernel|bzImage)-(?P<version>[A-Za-z0-9_][A-Za-z0-9_.+~-]{0,127})")
_INITRDS = (
    "initrd.img-{}",
    "initramfs-{}.img",
    "initramfs-{}",
    "initrd-{}",
    "initrd-{}.img",
    "initrd-{}.gz",
    "initramfs-{}-fallback.img",
    "initrd-{}-fallback.img",
)
_SLACKWARE, _ITS_INITRD = "/etc/slackware-version", "initrd.gz"
_NOT_A_KERNEL = re.compile(
    r"\.(old|bak|gz|img|hmac|dpkg-\w+|rpmsave|rpmnew|efi\.signed|xen2kvm-orig)$|rescue|kdump|-fallback$"
)
_MODULES = ("/lib/modules", "/usr/lib/modules")
_XEN_ONLY = re.compile(rb"^CONFIG_X86_(64_)?XEN=y$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the guest: `version` (uname -r), `image` and `initrd` as paths inside the guest.

    Where only a flavour is in the image's name and no folder of modules tells more, that is its version.
    """

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
    for named, name in versions.items():
        version = named if named[0].isdigit() else _release(guest, named)
        initrd = _initrd(guest, named, names)
        config = guest.read(f"{BOOT}/config-{named}") or guest.read(f"{BOOT}/config-{version}")
        if _runs_on_virtio(config, named, has_initrd=initrd is not None):
            found.append(
                Kernel(version, posixpath.join(BOOT, name), posixpath.join(BOOT, initrd) if initrd else None)
            )
    # Alpine's vmlinuz-virt and a vmlinuz with the release in its name may be one kernel.
    by_version = {kernel.version: kernel for kernel in reversed(found)}
    return tuple(sorted(by_version.values(), key=lambda kernel: version_key(kernel.version), reverse=True))


def _initrd(guest: Reading, version: str, names: tuple[str, ...]) -> str | None:
    forms = [form.format(version) for form in _INITRDS]
    if "generic" in version and guest.read(_SLACKWARE) is not None:
        forms.append(_ITS_INITRD)
    return next((form for form in forms if form in names), None)


def _release(guest: Reading, flavour: str) -> str:
    """The release (uname -r) of the kernel of a flavour, where its modules tell; else the flavour."""
    for folder in _MODULES:
        releases = [name for name in guest.names(folder) if name[0].isdigit()]
        # Arch's packages leave their name, which is the flavour; Alpine's releases end in it.
        own = [name for name in releases if _package(guest, f"{folder}/{name}") == flavour]
        fitting = own or [name for name in releases if name.endswith(f"-{flavour}")]
        if fitting:
            return max(fitting, key=version_key)
    return flavour


def _package(guest: Reading, modules: str) -> str | None:
    content = guest.read(f"{modules}/pkgbase")
    return None if content is None else content.decode(errors="replace").strip()


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


# GRUB comes from this host, so a kernel is all that a guest has to bring. The first file that is there, with
# the words that it has to hold, decides.
_COMMANDS = (
    ("/etc/lsb-release", r"Ubuntu", "apt-get install linux-image-virtual"),
    ("/etc/debian_version", r"[4-6]\.", "apt-get install linux-image-2.6-amd64  (-686 in a 32-bit guest)"),
    ("/etc/debian_version", "", "apt-get install linux-image-amd64  (linux-image-686-pae in a 32-bit guest)"),
    ("/etc/redhat-release", r"Fedora|release (?:[89]|[1-9][0-9])", "dnf install kernel"),
    ("/etc/redhat-release", "", "yum install kernel"),
    ("/etc/system-release", "", "yum install kernel"),
    ("/etc/SuSE-release", "", "zypper install kernel-default"),
    ("/etc/os-release", r"(?m)^ID(?:_LIKE)?=.*suse", "zypper install kernel-default"),
    ("/etc/alpine-release", "", "apk add linux-virt"),
    ("/etc/arch-release", "", "pacman -S linux"),
    (
        "/etc/gentoo-release",
        "",
        "emerge sys-kernel/gentoo-kernel-bin  (or genkernel all, with virtio built in)",
    ),
    ("/etc/slackware-version", "", "slackpkg install kernel-huge"),
)


def _install_command(guest: Reading) -> str:
    for path, words, command in _COMMANDS:
        content = guest.read(path)
        if content is not None and re.search(words, content.decode(errors="replace")):
            return f"run inside the guest, while it is on Xen: {command}"
    return "run inside the guest, while it is on Xen: install your distribution's kernel package"
