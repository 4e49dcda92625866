"""What a volume holds: its size and its file system's identity, found without mounting it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import CHECK, Failed, Refused, Usage
from blocksync.foreign import shown
from blocksync.sizes import counted
from orchestrate.hosts import MISSING, Host

_NOTHING_FOUND, _AMBIVALENT = 2, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What libblkid's low-level probe says: `filesystem` is its TYPE; None where nothing was recognised."""

    filesystem: str | None = None
    uuid: str | None = None
    label: str | None = None
    table: str | None = None


def size(host: Host, path: Path) -> int:
    """The volume's size in bytes; `Usage` where it is missing or neither a file nor a block device."""
    told = host.run(["stat", "--dereference", "--format=%F:%s", "--", str(path)])
    kind, _, length = told.output.decode(errors="replace").strip().partition(":")
    if told.status and "ermission denied" in told.complaint:
        raise Failed(path, "cannot be looked at: Permission denied", "run as root")
    if told.status or kind not in {"regular file", "regular empty file", "block special file"}:
        what = f"is a {kind}, no volume" if kind else f"no such volume on {host.describe()}"
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


def probe(host: Host, path: Path) -> Signature:
    """Probe a volume with `blkid -p`; two contradicting answers are `Refused`: it has data, but whose?"""
    forget_cached(host, path)
    told = host.run(["blkid", "-p", "-o", "export", "--", str(path)])
    if told.status == _NOTHING_FOUND:
        # blkid says the same of what it could not read.
        _require_readable(host, path)
        return Signature()
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
    lines = told.output.decode(errors="replace").splitlines()
    found = dict(_pair(line) for line in lines if "=" in line)
    return Signature(
        filesystem=found.get("TYPE"),
        uuid=found.get("UUID"),
        label=found.get("LABEL"),
        table=found.get("PTTYPE"),
    )


def _require_readable(host: Host, path: Path) -> None:
    """Raise `Failed` for a volume whose first mebibyte cannot be read."""
    told = host.run(["env", "LC_ALL=C", "dd", f"if={path}", "of=/dev/null", "bs=65536", "count=16"])
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
        return key, "".join(shlex.split(value))
    except ValueError:
        return key, value
