"""What a volume holds: its size and its file system's identity, found without mounting it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import CHECK, Failed, Refused, Usage
from blocksync.foreign import shown
from blocksync.hosts.host import MISSING, Host
from blocksync.sizes import counted

OF_SEVERAL = frozenset({"btrfs", "linux_raid_member", "zfs_member", "drbd", "bcache"})
"""File systems, as blkid names them, that may be on several volumes of one UUID."""

_NOTHING_FOUND, _AMBIVALENT = 2, 8
_MOST_ANSWER = 1 << 20
_KEY = re.compile(r"[A-Z0-9_]+")
_TYPE = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_RFC_4122 = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# What others have for a UUID: serial numbers, dates, letters. No program gives one of these characters a
# meaning.
_SERIAL = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z.:_-]{0,62}[0-9A-Za-z])?")
_UUIDS = {
    **dict.fromkeys(
        ("ext2", "ext3", "ext4", "xfs", "btrfs", "swap", "crypto_LUKS", "linux_raid_member"), _RFC_4122
    ),
    "vfat": re.compile(r"[0-9A-F]{4}-[0-9A-F]{4}"),
    "ntfs": re.compile(r"[0-9A-F]{16}"),
}
_LONGEST_LABEL = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeContent:
    """What libblkid's low-level probe says: `filesystem` is its TYPE; None where nothing was recognised.
    `member` tells the volumes of one file system apart (UUID_SUB).
    """

    filesystem: str | None = None
    uuid: str | None = None
    label: str | None = None
    table: str | None = None
    member: str | None = None


def is_type(filesystem: str) -> bool:
    """Whether blkid may call a file system so."""
    return _TYPE.fullmatch(filesystem) is not None


def is_uuid(filesystem: str, uuid: str) -> bool:
    """Whether blkid may print `uuid` for such a file system. No program gives a character of it a meaning."""
    return _UUIDS.get(filesystem, _SERIAL).fullmatch(uuid) is not None


def is_label(label: str) -> bool:
    """Whether it can be printed and written into a line."""
    return label.isprintable() and 0 < len(label) <= _LONGEST_LABEL


def size(host: Host, path: Path) -> int:
    """The volume's size in bytes; `Usage` where it is missing or neither a file nor a block device."""
    told = host.run(["stat", "--dereference", "--format=%F:%s", "--", str(path)])
    kind, _, length = told.output.decode(errors="replace").strip().partition(":")
    if told.status and "ermission denied" in told.complaint:
        raise Failed(path, "cannot be looked at: Permission denied", "run as root")
    if told.status or kind not in {"regular file", "regular empty file", "block special file"}:
        what = f"is a {shown(kind, 40)}, no volume" if kind else f"no such volume on {host.describe()}"
        raise Usage(path, what, "map it with --volume CONFIGURED=PATH, or name the host that has it")
    if kind == "block special file":
        told = host.run(["blockdev", "--getsize64", str(path)])
        if told.status:
            raise Failed(path, f"blockdev: {told.complaint}", "is the volume active? lvchange -ay")
        length = told.output.decode(errors="replace").strip()
    found = counted(length)
    if found is None:
        raise Failed(path, f"has an impossible size: {length[:40]!r}", "see what stat and blockdev say of it")
    return found


def identity(host: Host, path: Path) -> str:
    """What tells a volume from others, whatever names it has: a device's number, or a file's place."""
    told = host.run(["stat", "--dereference", "--format=%F %t:%T %d:%i", "--", str(path)])
    kind, _, numbers = told.output.decode(errors="replace").strip().rpartition(" ")
    return kind if kind.startswith("block special file") else f"{kind} {numbers}"


def forget_cached(host: Host, path: Path) -> None:
    """Let what is read of a volume next come from its disk. A guest that runs writes to it underneath its
    host's page cache, where what was once read stays as long as the guest has the volume open.
    """
    # Fails for a file, whose pages are those that the guest writes to.
    host.run(["blockdev", "--flushbufs", str(path)])


def probe(host: Host, path: Path) -> VolumeContent:
    """Probe a volume with `blkid -p`; two contradicting answers are `Refused`: it has data, but whose?"""
    forget_cached(host, path)
    told = host.run(["blkid", "-p", "-o", "export", "--", str(path)], most=_MOST_ANSWER)
    if told.status == _NOTHING_FOUND:
        # blkid says the same of what it could not read.
        _require_readable(host, path)
        return VolumeContent()
    if told.status == _AMBIVALENT:
        raise Refused(
            path,
            "carries signatures of several file systems",
            "look with `wipefs PATH`, and remove the stale one with `wipefs --backup -o OFFSET PATH`",
            guard="ambivalent",
        )
    if told.status == MISSING:
        raise Failed("blkid", f"is not on {host.describe()}", "apt-get install util-linux")
    if told.status:
        raise Failed(path, f"blkid: {told.complaint or told.status}")
    found = _fields(path, told.output.decode(errors="replace"))
    signature = VolumeContent(
        filesystem=found.get("TYPE"),
        uuid=found.get("UUID") or None,
        label=found.get("LABEL") or None,
        table=found.get("PTTYPE"),
        member=found.get("UUID_SUB"),
    )
    for wrong in _unfit(signature):
        raise Refused(path, wrong, _MEND, guard="signature")
    return signature


_MEND = (
    "look with `blkid -p PATH`; give it another one with the guest down: `tune2fs -U random -L LABEL PATH`, "
    "`xfs_admin -U generate -L LABEL PATH`"
)


def _fields(path: Path, answer: str) -> dict[str, str]:
    """What blkid says, by its keys. A label with the end of a line in it would say more."""
    found: dict[str, str] = {}
    for line in filter(None, answer.split("\n")):
        key, value = _pair(line)
        if not _KEY.fullmatch(key) or key in found:
            raise Refused(
                path, f"has a label or UUID with a line of its own: {shown(line)!r}", _MEND, guard="signature"
            )
        found[key] = value
    return found


def _unfit(found: VolumeContent) -> Iterator[str]:
    if any(text is not None and not is_type(text) for text in (found.filesystem, found.table)):
        yield f"holds {shown(found.filesystem or found.table or '', 64)!r}, which blkid would not say"
    if found.uuid is not None and not is_uuid(found.filesystem or "", found.uuid):
        yield f"has the UUID {shown(found.uuid, 64)!r}, which no file system {found.filesystem} has"
    if found.label is not None and not is_label(found.label):
        yield f"has the label {shown(found.label, 64)!r}, with a character that cannot be printed"


def _require_readable(host: Host, path: Path) -> None:
    """Raise `Failed` for a volume whose first mebibyte cannot be read."""
    told = host.run(["dd", f"if={path}", "of=/dev/null", "bs=65536", "count=16"])
    if told.status == 0:
        return
    said = next((line for line in told.complaint.splitlines() if line.startswith("dd:")), told.complaint)
    cause = shown(said.rpartition(": ")[2] or f"dd ended with status {told.status}")
    raise Failed(
        path,
        f"cannot be read: {cause}",
        "run as root" if "ermission" in cause or "permitted" in cause else CHECK,
    )


def _pair(line: str) -> tuple[str, str]:
    """A line of blkid's export format, whose values are escaped as for a shell."""
    key, _, value = line.partition("=")
    try:
        words = shlex.split(value)
    except ValueError:
        return key, value
    return key, words[0] if len(words) == 1 else value
