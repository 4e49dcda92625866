"""A paravirtual Xen guest as its configuration describes it."""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from blocksync.errors import Usage
from blocksync.foreign import shown
from orchestrate.xen import config, left_behind, xl_listing, xl_sxp_listing, xm_listing
from orchestrate.xen.disks import XenDisk, read_disk
from orchestrate.xen.values import HAND_IN, Settings, TextPosition, Value
from orchestrate.xen.vifs import Vif, read_vif

MAX_FILE_BYTES = 1 << 20

# What xm gives a guest that does not say; xl gives less.
_DEFAULT_MEMORY_MIB = 128

# Loaders that stand in for the kernel and read the guest's own menu; `extra` is their menu's path then.
_PV_GRUB = re.compile(r"pv-?grub|grub-(i386|x86_64)-xen")
_ROOT_ARGUMENT = re.compile(r"(?:^|\s)root=(\S+)")
_LONGEST_WARNING = 1000
_UNFIT_FOR_A_NAME = re.compile(r"[/\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class XenGuest:
    """What Xen starts. Sizes are MiB; texts that are not set are None.

    `kind` is pv or pvh. `root` is the root device without its options (/dev/xvda2, or UUID=...). `cmdline` is
    the kernel's whole command line: `cmdline` as configured, else `root=` and `extra` joined in xl's way
    (without xm's `ip=` part from `dhcp` and its like). It is "" when pv-grub, which reads the guest's own
    menu, stands in for the kernel. `bootloader` is what is configured (pygrub), or pv-grub. `left_behind` are
    sentences about what does not go over to KVM.
    """

    name: str
    source: str
    kind: str
    uuid: str | None
    memory_mib: int
    maxmem_mib: int | None
    vcpus: int
    kernel: str | None
    ramdisk: str | None
    root: str | None
    extra: str | None
    cmdline: str
    bootloader: str | None
    localtime: bool
    on_poweroff: str | None
    on_reboot: str | None
    on_crash: str | None
    disks: tuple[XenDisk, ...]
    vifs: tuple[Vif, ...]
    warnings: tuple[str, ...]
    left_behind: tuple[str, ...] = ()


def read_guest(path: Path) -> XenGuest:
    """Read a guest's configuration: xm or xl text, `xl list -l` JSON, or `xm list -l` s-expressions.

    Executes nothing. Raises `Usage` about the file when it is missing, no regular file, unreadable, binary or
    larger than 1 MiB, and about `path:line:column` when what it says is wrong or is no paravirtual guest.
    """
    return parse_guest(_read_bytes(path), str(path))


def parse_guest(content: bytes, source: str) -> XenGuest:
    """As `read_guest`, of a file's content; `source` names it in errors and warnings."""
    text, warnings = _text(content, source)
    return describe(_notation(text)(text, source), source, warnings)


def describe(settings: Settings, source: str, warnings: tuple[str, ...] = ()) -> XenGuest:
    """The guest that `settings` (in the names of xl.cfg(5)) amount to; `warnings` come before its own.

    Raises `Usage` for values that are wrong, no disk, a virtual device that is given twice, an HVM guest.
    """
    kind = _kind(settings)
    name, name_warnings = _name(settings, source)
    memory, memory_warnings = _memory(settings)
    disks, disk_warnings = _disks(settings)
    vifs, vif_warnings = _vifs(settings)
    bootloader = _bootloader(settings)
    cmdline, cmdline_warnings = _cmdline(settings, bootloader)
    return XenGuest(
        name=name,
        source=source,
        kind=kind,
        uuid=settings.text("uuid"),
        memory_mib=memory,
        maxmem_mib=_positive(settings, "maxmem"),
        vcpus=_positive(settings, "vcpus") or 1,
        kernel=settings.text("kernel"),
        ramdisk=settings.text("ramdisk"),
        root=_root(settings, cmdline),
        extra=settings.text("extra"),
        cmdline=cmdline,
        bootloader=bootloader,
        localtime=settings.flag("localtime"),
        on_poweroff=settings.text("on_poweroff"),
        on_reboot=settings.text("on_reboot"),
        on_crash=settings.text("on_crash"),
        disks=disks,
        vifs=vifs,
        warnings=_shown(
            *warnings,
            *settings.warnings,
            *name_warnings,
            *memory_warnings,
            *cmdline_warnings,
            *disk_warnings,
            *vif_warnings,
        ),
        left_behind=left_behind.of(settings, disks, vifs),
    )


def _shown(*warnings: str) -> tuple[str, ...]:
    """They quote the configuration, in which another host's words may be."""
    return tuple(shown(warning, _LONGEST_WARNING) for warning in warnings)


def _text(content: bytes, source: str) -> tuple[str, tuple[str, ...]]:
    if len(content) > MAX_FILE_BYTES:
        raise Usage(source, f"larger than {MAX_FILE_BYTES} bytes: this is no guest's configuration", HAND_IN)
    if b"\0" in content:
        raise Usage(source, "binary: this is no guest's configuration", HAND_IN)
    try:
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        return content.decode("latin-1"), (f"{source}: not UTF-8; read as Latin-1",)


def _read_bytes(path: Path) -> bytes:
    """At most one byte more than is allowed. O_NONBLOCK: opening a pipe must not wait for its writer."""
    way_out = "give the path of the guest's configuration, as in /etc/xen/NAME.cfg"
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Usage(path, "not a regular file", way_out)
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise Usage(path, f"cannot be read: {cause}", way_out) from None


def _notation(text: str) -> Callable[[str, str], Settings]:
    """The reader for a text, by its first character: no configuration can start with a bracket."""
    first = text.lstrip()[:1]
    if first in ("{", "["):
        return xl_listing.parse
    if first == "(":
        return xl_sxp_listing.parse if xl_sxp_listing.is_one(text) else xm_listing.parse
    return config.parse


def _kind(settings: Settings) -> str:
    for key in ("type", "builder"):
        word = (settings.text(key) or "").lower()
        if word == "hvm":
            raise settings.values[key].place.wrong(
                "an HVM guest has a whole disk with a boot loader already: nothing has to be put together",
                "copy its disk with `blocksync sync SOURCE TARGET` and define a domain for it",
            )
        if word in ("pv", "pvh"):
            return word
        if word not in ("", "generic", "linux"):
            raise settings.values[key].place.wrong(f"{word!r} is no kind of guest", "pv or pvh can be moved")
    return "pv"


def _name(settings: Settings, source: str) -> tuple[str, tuple[str, ...]]:
    name = settings.text("name")
    if name is None:
        stem = PurePosixPath(source).stem
        return stem, (f"{source}: no name is set; the guest is called {stem} after the file",)
    if _UNFIT_FOR_A_NAME.search(name) or name in (".", ".."):
        raise settings.values["name"].place.wrong(
            f"{name[:40]!r} cannot name a guest", "take out `/` and the like"
        )
    return name, ()


def _memory(settings: Settings) -> tuple[int, tuple[str, ...]]:
    memory = _positive(settings, "memory") or _positive(settings, "maxmem")
    if memory is not None:
        return memory, ()
    return _DEFAULT_MEMORY_MIB, (
        f"{settings.source}: no memory is set; {_DEFAULT_MEMORY_MIB} MiB as xm gives",
    )


def _positive(settings: Settings, key: str) -> int | None:
    number = settings.number(key)
    if number is not None and number < 1:
        raise settings.values[key].place.wrong(f"{key} is {number}, it has to be at least 1")
    return number


def _bootloader(settings: Settings) -> str | None:
    kernel = settings.text("kernel")
    if kernel and _PV_GRUB.match(Path(kernel).name):
        return "pv-grub"
    return settings.text("bootloader")


def _cmdline(settings: Settings, bootloader: str | None) -> tuple[str, tuple[str, ...]]:
    if bootloader == "pv-grub":
        return "", ()
    root, extra = settings.text("root"), settings.text("extra")
    whole = settings.text("cmdline")
    if whole is not None:
        ignored = root is not None or extra is not None
        place = settings.values["cmdline"].place
        return whole, (f"{place}: cmdline is set, so root and extra do not count",) if ignored else ()
    arguments = [f"root={root.removeprefix('root=')}"] if root else []
    return " ".join([*arguments, *([extra] if extra else [])]), ()


def _root(settings: Settings, cmdline: str) -> str | None:
    """The last root= of the command line, as the kernel takes it; with a boot loader, what `root` says."""
    named = _ROOT_ARGUMENT.findall(cmdline)
    if named:
        return str(named[-1])
    words = (settings.text("root") or "").removeprefix("root=").split()
    return words[0] if words and settings.text("cmdline") is None else None


def _disks(settings: Settings) -> tuple[tuple[XenDisk, ...], tuple[str, ...]]:
    disks: dict[str, XenDisk] = {}
    warnings: list[str] = []
    for item in settings.items("disk"):
        disk, of_disk = read_disk(item)
        warnings.extend(of_disk)
        if disk is None:
            continue
        if disk.vdev in disks:
            first = disks[disk.vdev].place
            raise item.place.wrong(
                f"{disk.vdev} is given twice, first in line {first.line}", "keep one of them"
            )
        disks[disk.vdev] = disk
    if not disks:
        raise _no_disk(settings.get("disk"), settings.source)
    return tuple(disks.values()), tuple(warnings)


def _no_disk(setting: Value | None, source: str) -> Usage:
    place = setting.place if setting else TextPosition(source, 1, 1)
    return place.wrong("the guest has no disk", "give at least one: disk = ['phy:/dev/VG/LV,xvda1,w']")


def _vifs(settings: Settings) -> tuple[tuple[Vif, ...], tuple[str, ...]]:
    read = [read_vif(item) for item in settings.items("vif")]
    return tuple(vif for vif, _ in read), tuple(warning for _, warnings in read for warning in warnings)
