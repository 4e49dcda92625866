"""The script that makes a guest ready for KVM while it runs under Xen, and the lines that it prints."""

from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

from blocksync.foreign import shown

Kind = Literal["have", "did", "would", "keep", "todo"]
"""In order already, done now, to be done without --dry-run, left as it is, only for the administrator."""

_KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Line:
    """One finding or one action of the script."""

    kind: Kind
    text: str


def script() -> str:
    """prepare.sh: POSIX sh, to be run as root inside the guest; --dry-run and --undo are its options."""
    return resources.files("orchestrate.guest.prepare").joinpath("prepare.sh").read_text()


def line(printed: str) -> Line | None:
    """What a line of the script's output says, control characters replaced; None for any other line."""
    word, colon, text = printed.partition(": ")
    kind = next((each for each in _KINDS if each == word), None) if colon else None
    return None if kind is None else Line(kind, shown(text.strip()))
