"""Logical volumes as `lvs` reports them, on this host or a far one, by commands alone.

Options and fields are those that LVM 2.02 of 2009 has already, save where thin volumes need newer ones.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blocksync.errors import Failed, Usage
from blocksync.hosts.runner import Run, output_of
from blocksync.sizes import counted

_FIELDS = ("vg_name", "lv_name", "lv_uuid", "lv_size", "lv_attr", "origin", "pool_lv", "lv_tags")
_SEPARATOR = "|"
# What LVM allows in names and tags; a name starts with no hyphen (lvm(8), VALID NAMES).
_NAME = re.compile(r"[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*")
_MOST_DM_NAME = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """A logical volume: `size` in bytes, of a snapshot's store where it has its own; `attributes` as lvs
    prints them; `origin` and `pool` by name, empty where there is none.
    """

    group: str
    name: str
    uuid: str
    size: int
    attributes: str
    origin: str
    pool: str
    tags: frozenset[str]

    @property
    def full_name(self) -> str:
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> str:
        """The device."""
        return f"/dev/{self.full_name}"

    @property
    def is_thin(self) -> bool:
        """Whether it lives in a thin pool."""
        return self.attributes.startswith("V")

    @property
    def is_snapshot(self) -> bool:
        return bool(self.origin)

    @property
    def dm_name(self) -> str:
        return dm_name(self.group, self.name)


def dm_name(group: str, name: str) -> str:
    """What device-mapper calls a logical volume: hyphens doubled, joined by one."""
    return f"{group.replace('-', '--')}-{name.replace('-', '--')}"


def check_name(group: str, name: str) -> None:
    """Raises Usage for a name that LVM would refuse, also for want of room for its `-cow` device."""
    for part in (group, name):
        if not _NAME.fullmatch(part):
            raise Usage(f"{group}/{name}", "is no name of a logical volume", "name it as GROUP/VOLUME")
    if len(dm_name(group, name) + "-cow") > _MOST_DM_NAME:
        raise Usage(f"{group}/{name}", "is too long a name for device-mapper", "shorten the job's name")


def split_path(path: str) -> tuple[str, str]:
    """Group and name of /dev/GROUP/NAME, /dev/mapper/DM-NAME or GROUP/NAME. Raises Usage."""
    text = path.removeprefix("/dev/")
    if text.startswith("mapper/"):
        parts = re.split(r"(?<!-)-(?!-)", text.removeprefix("mapper/"))
        parts = [part.replace("--", "-") for part in parts]
    else:
        parts = text.split("/")
    if len(parts) != 2 or not all(parts):
        raise Usage(path, "is no logical volume", "name it as /dev/GROUP/VOLUME")
    check_name(*parts)
    return parts[0], parts[1]


def volume(run: Run, path: str) -> LogicalVolume:
    """The volume at a path. Raises Usage when it is none, Failed when lvs fails."""
    group, name = split_path(path)
    found = find(run, group, name)
    if found is None:
        raise Usage(path, "does not exist", "look for it with `lvs`")
    return found


def find(run: Run, group: str, name: str) -> LogicalVolume | None:
    """The volume of that name, None where there is none. Raises Failed when lvs fails."""
    listed = _report(run, [group])
    return next((each for each in listed if each.name == name), None)


def tagged(run: Run, tag: str) -> list[LogicalVolume]:
    """All volumes with a tag. Raises Failed when lvs fails."""
    return [each for each in _report(run, []) if tag in each.tags]


def _report(run: Run, which: Sequence[str]) -> list[LogicalVolume]:
    options = [
        "--noheadings",
        "--units",
        "b",
        "--nosuffix",
        "--separator",
        _SEPARATOR,
        "-o",
        ",".join(_FIELDS),
    ]
    text = output_of(run, ["env", "LC_ALL=C", "lvs", *options, *which], "is LVM installed, the group there?")
    return [_parse(line) for line in text.splitlines() if line.strip()]


def _parse(line: str) -> LogicalVolume:
    fields = line.strip().split(_SEPARATOR)
    length = counted(fields[3]) if len(fields) == len(_FIELDS) else None
    if length is None:
        raise Failed("lvs", f"printed what cannot be read: {line.strip()[:200]!r}")
    group, name, uuid, _, attributes, origin, pool, tags = fields
    if not _NAME.fullmatch(group) or not _NAME.fullmatch(name):
        raise Failed("lvs", f"printed an impossible name: {line.strip()[:200]!r}")
    return LogicalVolume(
        group=group,
        name=name,
        uuid=uuid,
        size=length,
        attributes=attributes,
        origin=origin,
        pool=pool,
        tags=frozenset(tags.split(",")) - {""},
    )
