"""Guests as texts: what a fix-up's test plans over."""

from collections.abc import Mapping
from textwrap import dedent

from orchestrate.guest.facts import Facts, GuestNic, GuestVolume
from orchestrate.guest.files.edit import Edited
from orchestrate.guest.fixups.fixup import Fixup, by_name

ROOT = GuestVolume("xvda2", 2, "ext4", "11111111-2222-3333-4444-555555555555", "root")
SWAP = GuestVolume("xvda1", 1, "swap", "66666666-7777-8888-9999-aaaaaaaaaaaa")
DATA = GuestVolume("xvda3", 3, "xfs", "bbbbbbbb-cccc-dddd-eeee-ffffffffffff", "data")
MAC = "00:16:3e:37:d0:70"
FACTS = Facts((ROOT, SWAP, DATA), (GuestNic(MAC),), "xvda2")


class Files:
    """A guest that consists of the given files."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self._files = {
            path: content if isinstance(content, bytes) else _unindented(content).encode()
            for path, content in files.items()
        }

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)

    def names(self, directory: str) -> tuple[str, ...]:
        below = directory.rstrip("/") + "/"
        found = {path.removeprefix(below).split("/")[0] for path in self._files if path.startswith(below)}
        return tuple(sorted(found))


def _unindented(content: str) -> str:
    """A block that starts on a line of its own is indented like the test around it."""
    return dedent(content).removeprefix("\n") if content.startswith("\n") else content


def after(fixup: Fixup | str, files: Mapping[str, str | bytes], facts: Facts = FACTS) -> Edited:
    """The guest once the fix-up's edits are made."""
    guest = Files(files)
    chosen = by_name(fixup) if isinstance(fixup, str) else fixup
    return Edited(guest, chosen.edits(guest, facts))


def text(guest: Edited, path: str) -> str | None:
    content = guest.read(path)
    return None if content is None else content.decode()
