"""What a volume holds: its size and its file system's identity, found without mounting it."""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from blocksync import devices
from blocksync.errors import Failed, Refused, Usage

_NOTHING_FOUND, _AMBIVALENT = 2, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What libblkid's low-level probe says: `filesystem` is its TYPE; None where nothing was recognised."""

    filesystem: str | None = None
    uuid: str | None = None
    label: str | None = None
    table: str | None = None


def size(path: Path) -> int:
    """The volume's size in bytes; `Usage` where it is missing or neither a file nor a block device."""
    if not path.exists():
        raise Usage(
            path, "no such volume", "map it with --volume CONFIGURED=PATH, or run on the host that has it"
        )
    return devices.measure(path).size


def probe(path: Path) -> Signature:
    """Probe a volume with `blkid -p`; two contradicting answers are `Refused`: it has data, but whose?"""
    argv = ["blkid", "-p", "-o", "export", "--", str(path)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise Failed("blkid", error.strerror or "cannot be run", "apt-get install util-linux") from error
    if done.returncode == _NOTHING_FOUND:
        return Signature()
    if done.returncode == _AMBIVALENT:
        raise Refused(
            path,
            "carries signatures of several file systems",
            "look with `wipefs PATH`, and remove the stale one with `wipefs --backup -o OFFSET PATH`",
            guard="ambivalent",
        )
    if done.returncode:
        raise Failed(path, f"blkid: {done.stderr.strip() or done.returncode}")
    found = dict(_pair(line) for line in done.stdout.splitlines() if "=" in line)
    return Signature(
        filesystem=found.get("TYPE"),
        uuid=found.get("UUID"),
        label=found.get("LABEL"),
        table=found.get("PTTYPE"),
    )


def _pair(line: str) -> tuple[str, str]:
    """A line of blkid's export format, whose values are escaped as for a shell."""
    key, _, value = line.partition("=")
    try:
        return key, "".join(shlex.split(value))
    except ValueError:
        return key, value
