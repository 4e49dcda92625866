"""The script that makes a guest ready for KVM while it runs under Xen, and the lines that it prints."""

from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

Kind = Literal["have", "did", "would", "keep", "todo"]
"""In order already, done now, to be done without --dry-run, left as it is, only for the administrator."""


@dataclass(frozen=True, slots=True)
class Line:
    """One finding or one action of the script."""

    kind: Kind
    text: str


def script() -> str:
    """prepare.sh: POSIX sh, to be run as root inside the guest; --dry-run and --undo are its options."""
    return resources.files("orchestrate.guest").joinpath("prepare.sh").read_text()


def line(printed: str) -> Line | None:
    """What a line of the script's output says, control characters replaced; None for any other line."""
    for kind in get_args(Kind):
        text = printed.removeprefix(f"{kind}: ")
        if text != printed:
            return Line(kind, "".join(each if each.isprintable() else "?" for each in text.strip()))
    return None
