"""What each text and each number of a plan may be.

A plan is edited by people, and half of it was said by a guest or another host. Its texts become parts of
files' names, of commands, of a boot loader's script and of tables on a terminal.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from blocksync import locations
from blocksync.errors import Usage
from orchestrate.guest import volumes
from orchestrate.plan.model import Plan, Volume
from orchestrate.xen.devices import is_name

LARGEST = 2**63 - 1
_MOST_MEMORY_MIB, _MOST_VCPUS = 2**24, 4096
_LONGEST_TEXT = 4096
_COMMAND = "check.command"
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,63}")
_NIC = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,15}")
_KERNEL = re.compile(r"[0-9][A-Za-z0-9_.+~-]{0,127}")


def check(plan: Plan, thing: object) -> None:
    """Raise `Usage`, naming `thing`, for the first one that is not what it has to be."""
    wrong = next(_wrong(plan), None)
    if wrong is not None:
        raise Usage(thing, wrong, "correct the line, or make the plan again with `xen2kvm plan`")


def is_mountpoint(path: str) -> bool:
    """Whether it is one spelling of a folder of the guest: absolute, without doubled parts and links up."""
    return path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path


def _wrong(plan: Plan) -> Iterator[str]:
    """All that is wrong, the strings before what is made of them."""
    yield from _wrong_values(msgspec.to_builtins(plan), "")
    yield from _wrong_head(plan)
    for volume in plan.volume:
        yield from (f"volume {volume.device}: {cause}" for cause in _wrong_volume(volume))
    yield from _twice("nic", (nic.mac for nic in plan.nic))
    yield from _twice("fixup", (choice.name for choice in plan.fixup))
    alone = (volume for volume in plan.volume if volume.filesystem not in volumes.OF_SEVERAL)
    yield from _twice("uuid", (volume.uuid.lower() for volume in alone if volume.uuid))
    for nic in plan.nic:
        if nic.bridge is not None and not _BRIDGE.fullmatch(nic.bridge):
            yield f"nic: {nic.bridge!r} is no bridge's name"
        if nic.name is not None and not _NIC.fullmatch(nic.name):
            yield f"nic: {nic.name!r} is no card's name"


def _wrong_values(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _wrong_values(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _wrong_values(inner, key)
    elif isinstance(value, str):
        # A script in a command may have lines.
        if "\0" in value if key == _COMMAND else not value.isprintable():
            yield f"{key}: {value[:40]!r} has a character in it that cannot be printed"
        elif len(value) > _LONGEST_TEXT:
            yield f"{key}: is longer than {_LONGEST_TEXT} characters"
    elif isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        yield f"{key}: is larger than any size"


def _wrong_head(plan: Plan) -> Iterator[str]:
    if plan.guest.memory_mib > _MOST_MEMORY_MIB or plan.guest.vcpus > _MOST_VCPUS:
        yield f"guest: memory_mib is at most {_MOST_MEMORY_MIB}, vcpus {_MOST_VCPUS}"
    if plan.xen_host is not None and str(_host(plan.xen_host)) != plan.xen_host:
        yield f"xen_host: {plan.xen_host!r} is not [user@]host[:port]"
    if plan.config is not None and not plan.config.startswith("/"):
        yield f"config: {plan.config!r} is not an absolute path"
    if not plan.disk.path.startswith("/"):
        yield f"disk.path: {plan.disk.path!r} is not an absolute path"
    if plan.disk.boot_area.size <= 0:
        yield "disk.boot_area: its size is above 0"
    yield from (
        f"boot.kernels: {version!r} is no kernel's version"
        for version in plan.boot.kernels
        if not _KERNEL.fullmatch(version)
    )


def _host(text: str) -> object:
    try:
        return locations.parse(f"ssh://{text}/-").host
    except Usage as error:
        return error


def _wrong_volume(volume: Volume) -> Iterator[str]:
    if not is_name(volume.device):
        yield "device is the guest's name for it, such as xvda2"
    if not volume.path.startswith("/"):
        yield f"path: {volume.path!r} is not absolute"
    if volume.size <= 0:
        yield "its size is above 0"
    if not volumes.is_type(volume.filesystem):
        yield f"filesystem: {volume.filesystem!r} is none that blkid names"
    if volume.uuid is not None and not volumes.is_uuid(volume.filesystem, volume.uuid):
        yield f"uuid: {volume.uuid!r} is not one of a file system {volume.filesystem}"
    if volume.label is not None and not volumes.is_label(volume.label):
        yield f"label: {volume.label[:40]!r} is no label"
    if volume.mountpoint is not None and not is_mountpoint(volume.mountpoint):
        yield f"mountpoint: {volume.mountpoint!r} is not an absolute path without doubled parts"


def _twice(what: str, texts: Iterable[str]) -> Iterator[str]:
    return (f"{what}: {text} is there {count} times" for text, count in Counter(texts).items() if count > 1)
