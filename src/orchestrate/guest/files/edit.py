"""One change to one file of a guest, and a guest as it will look once changes are made."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrate.guest.files.reading import Reading


@dataclass(frozen=True, slots=True)
class Edit:
    """New content for a file, or None to take the file away.

    `mode` holds permission bits for a file that does not exist yet (0o644 when None); a file that is
    replaced keeps its own.
    """

    path: str
    content: bytes | None
    reason: str
    mode: int | None = None


class Edited:
    """A guest with edits laid over it: what the next planner sees. The guest itself is not touched."""

    def __init__(self, guest: Reading, edits: Iterable[Edit] = ()) -> None:
        self._guest = guest
        self._content: dict[str, bytes | None] = {edit.path: edit.content for edit in edits}

    def read(self, path: str) -> bytes | None:
        """As `Reading.read`, after the edits."""
        return self._content[path] if path in self._content else self._guest.read(path)

    def names(self, directory: str) -> tuple[str, ...]:
        """As `Reading.names`, after the edits."""
        present = set(self._guest.names(directory))
        for path, content in self._content.items():
            parent, name = posixpath.split(path)
            if parent == directory.rstrip("/"):
                present = present - {name} if content is None else present | {name}
        return tuple(sorted(present))
