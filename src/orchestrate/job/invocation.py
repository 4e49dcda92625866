"""`job.json`: by which plan and which command line a job was last worked on.

`xen2kvm status` names the next command by it, and whoever continues a broken night finds it there.
"""

import os
from pathlib import Path

import msgspec

from blocksync import own_files

FILE = "job.json"
FORMAT = 1


class Invocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `job.json`. `plan` is the plan's absolute path, `command` the words after `xen2kvm`,
    `directory` where they were given.
    """

    format: int = FORMAT
    plan: str
    command: tuple[str, ...] = ()
    directory: str = "/"


def remember(folder: Path, plan: Path, words: list[str]) -> None:
    """Write it, durably. A name that is no text is kept as Python shows it. Raises Failed, and Usage."""
    found = Invocation(
        plan=_text(os.path.abspath(plan)),  # noqa: PTH100 - a plan that is a link keeps its name
        command=tuple(_text(word) for word in words),
        directory=_text(str(Path.cwd())),
    )
    own_files.replace(
        folder / FILE, msgspec.json.format(msgspec.json.encode(found)) + b"\n", "a job's memory"
    )


def _text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
