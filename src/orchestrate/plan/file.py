"""The plan as TOML: written with comments for its reader, read back without trust."""

import os
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import tomlkit
from tomlkit import TOMLDocument
from tomlkit.items import Table

from blocksync import locations, own_files
from blocksync.errors import Usage
from blocksync.foreign import shown
from orchestrate.guest.fixups import fixup
from orchestrate.layout import table as layout
from orchestrate.plan import fields
from orchestrate.plan.arguments import SPEAKABLE
from orchestrate.plan.model import FORMAT, Action, Plan, table

_LARGEST = 1024 * 1024
_READABLE = 0o644
_LONGEST_WARNING = 2000
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NAME = re.compile(r"(?=.{1,128}$)(?=.*[^0-9])[A-Za-z0-9]([A-Za-z0-9 +_.:,@()#-]*[A-Za-z0-9+_.:,@()#-])?")
_XEN_NAME = re.compile(r"(?=.*[^0-9])[^\s/-]([^/]*[^\s/])?")
_MAKE_AGAIN = "correct the line, or make the plan again with `xen2kvm plan`"

_HEADER = """\
The way of one Xen guest to KVM. Read it, edit it, keep it.
Sizes and offsets are in bytes. `xen2kvm sync`, `rehearse` and `cutover` do what stands here.
"""
_FIRST_LINE = f"# {_HEADER.splitlines()[0]}\n".encode()
_COMMENTS = {
    "disk": "The new disk. `boot_area` holds GRUB's core image, outside every file system.",
    "boot": "`expect` is what the serial console shows when the guest is up (a regular expression).",
    "volume": "The guest's volumes: read from `path`, laid into `partition`. Sources are never written.",
    "nic": "Network cards keep their MAC address; `name` is what the guest calls the card.",
    "check": "What shows that the guest serves on KVM: `command`, `tcp` or `url`, for `timeout` seconds.",
    "fixup": "What is changed inside the guest, and why. Take an entry out and it is not done.",
}


def dump(plan: Plan, warnings: tuple[str, ...] = ()) -> str:
    """The plan as TOML text, `warnings` as comments at its head. Raises `Usage` for a plan that could not be
    read back as what it is.
    """
    document = tomlkit.document()
    for line in _HEADER.splitlines():
        document.add(tomlkit.comment(line))
    for warning in warnings:
        # One line: what follows its end would be no comment.
        document.add(tomlkit.comment(f"WARNING: {shown(warning, _LONGEST_WARNING)}"))
    document.add(tomlkit.nl())
    for key, value in _without_none(msgspec.to_builtins(plan)).items():
        _add(document, key, value)
    text = re.sub(r"\n{3,}", "\n\n", tomlkit.dumps(document))
    if parse(text, f"guest {plan.guest.name}") != plan:
        raise Usage(f"guest {plan.guest.name}", "has a text that no plan can hold", _MAKE_AGAIN)
    return text


def _without_none(value: Any) -> Any:
    """TOML has no null: a key whose value is not known is left out."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value


def _add(document: TOMLDocument, key: str, value: Any) -> None:
    if value == []:
        return
    if key in _COMMENTS:
        document.add(tomlkit.comment(_COMMENTS[key]))
    if isinstance(value, list):
        tables = tomlkit.aot()
        for row in value:
            tables.append(_table(row))
        document.add(key, tables)
    elif isinstance(value, dict):
        document.add(key, _table(value))
    else:
        document.add(key, tomlkit.item(value))
        document.add(tomlkit.nl())


def _table(row: dict[str, Any]) -> Table:
    table = tomlkit.table()
    for key, value in row.items():
        if isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update(value)
            table.add(key, inline)
        else:
            table.add(key, value)
    table.add(tomlkit.nl())
    return table


def require_place(path: Path, *, replace: bool) -> None:
    """Raises Usage unless a plan may be written at `path`: nothing is there, or a plan that may be replaced.
    Writes nothing.
    """
    if own_files.require_regular(path, "a plan") is None:
        return
    if not replace:
        raise Usage(path, "exists already", "name another -o, or replace it with --force")
    if own_files.read(path, "a plan", len(_FIRST_LINE)) != _FIRST_LINE:
        cause = "is not a plan that `xen2kvm plan` wrote, and --force replaces nothing else"
        raise Usage(path, cause, "name another -o")


def write(path: Path, text: str) -> None:
    """Write a plan, durably, so that it is whole or not there. Raises Usage, Failed."""
    own_files.replace(path, text.encode(), "a plan", _READABLE)


def load(path: Path) -> Plan:
    """Read and check a plan; raises `Usage` naming the file, the line or key, and what is wrong."""
    try:
        # A plan may be a link, but nothing that has to be waited for.
        with (
            own_files.opened(path, os.O_RDONLY, "a plan", follow=True) as fd,
            open(fd, "rb", closefd=False) as file,
        ):
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise Usage(path, "is larger than a mebibyte: not a plan", _MAKE_AGAIN)
        return parse(raw.decode(), path)
    except OSError as error:
        raise Usage(
            path,
            f"cannot be read: {error.strerror}",
            "make it with `xen2kvm plan GUEST.cfg --disk TARGET -o PLAN`",
        ) from error
    except UnicodeDecodeError as error:
        raise Usage(path, f"is not UTF-8 text (byte {error.start})", _MAKE_AGAIN) from error


def parse(text: str, thing: object) -> Plan:
    """A checked plan from TOML text; `thing` names it in errors."""
    try:
        text.encode()
        plan = msgspec.toml.decode(text, type=Plan)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Usage(thing, f"is not a plan: {error}", _MAKE_AGAIN) from error
    _check(plan, thing)
    return plan


def _check(plan: Plan, thing: object) -> None:
    _check_head(plan, thing)
    _check_volumes(plan, thing)
    for nic in plan.nic:
        if not _MAC.fullmatch(nic.mac):
            raise Usage(thing, f"nic: {nic.mac!r} is not a MAC address in lower case", _MAKE_AGAIN)
    known = [rule.name for rule in fixup.ALL]
    for choice in plan.fixup:
        if choice.name not in known:
            raise Usage(thing, f"fixup: {choice.name!r} is not one of {', '.join(known)}", _MAKE_AGAIN)
    fields.check(plan, thing)
    if plan.xen_host is not None:
        for volume in plan.volume:
            locations.parse(f"ssh://{plan.xen_host}{volume.path}")
    layout.check(table(plan), thing)


def is_domain_name(name: str) -> bool:
    """Whether `name` can be a domain's, a folder's and a word of virsh's: letters, digits, blanks inside and
    `+_.:,@()#-`, not digits alone, which virsh takes for a number of its own.
    """
    return _NAME.fullmatch(name) is not None


def is_xen_name(name: str) -> bool:
    """Whether xl and xm take `name` for a guest's: one line, no option, and no number of a domain."""
    return name.isprintable() and _XEN_NAME.fullmatch(name) is not None


def _check_head(plan: Plan, thing: object) -> None:
    if plan.format != FORMAT:
        raise Usage(thing, f"has format {plan.format}, this version reads {FORMAT}", _MAKE_AGAIN)
    if not is_domain_name(plan.guest.name):
        raise Usage(thing, f"guest: {plan.guest.name!r} cannot be a domain's name", _MAKE_AGAIN)
    if not is_xen_name(plan.guest.on_xen):
        raise Usage(thing, f"guest: {plan.guest.on_xen!r} cannot be a guest's name on Xen", _MAKE_AGAIN)
    if plan.guest.memory_mib < 1 or plan.guest.vcpus < 1:
        raise Usage(thing, "guest: memory_mib and vcpus are 1 or more", _MAKE_AGAIN)
    try:
        UUID(plan.disk.identity)
        re.compile(plan.boot.expect)
    except ValueError as error:
        raise Usage(thing, f"disk.identity: {error}", _MAKE_AGAIN) from error
    except (re.error, OverflowError, RecursionError) as error:
        raise Usage(thing, f"boot.expect is not a regular expression: {error}", _MAKE_AGAIN) from error
    for argument in plan.boot.arguments:
        if not SPEAKABLE.fullmatch(argument):
            raise Usage(
                thing,
                f"boot.arguments: {argument!r} holds a character that GRUB gives a meaning",
                _MAKE_AGAIN,
            )


def _check_volumes(plan: Plan, thing: object) -> None:
    devices = [volume.device for volume in plan.volume]
    if len(set(devices)) != len(devices):
        raise Usage(thing, "two volumes have the same device", _MAKE_AGAIN)
    if plan.boot.root not in devices:
        raise Usage(thing, f"boot.root: no volume is {plan.boot.root!r}", _MAKE_AGAIN)
    for volume in plan.volume:
        if volume.partition.size < volume.size:
            raise Usage(
                thing, f"volume {volume.device}: {volume.size} bytes do not fit its partition", _MAKE_AGAIN
            )
        if volume.action is Action.RECREATE and volume.filesystem != "swap":
            raise Usage(thing, f"volume {volume.device}: only swap can be recreated", _MAKE_AGAIN)
        if volume.path == plan.disk.path and plan.xen_host is None:
            raise Usage(thing, f"volume {volume.device}: is the target itself", _MAKE_AGAIN)
    if plan.root.action is not Action.COPY:
        raise Usage(thing, "boot.root: the root volume has to be copied", _MAKE_AGAIN)
