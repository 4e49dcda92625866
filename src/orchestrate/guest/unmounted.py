"""A guest's files read from its volumes without mounting them, with GRUB's own file system code.

`grub-fstest` reads in user space, never writes and replays no journal. What it cannot find, GRUB could not
boot either. A guest that runs may be in the middle of a change: this is for planning, not for copying.
"""

import posixpath
import subprocess
from collections.abc import Mapping
from pathlib import Path

from blocksync.errors import Failed
from orchestrate.guest.reading import LARGEST_FILE

_SECONDS = 60


class Unmounted:
    """Volumes by mount point ("/" among them) as one `Reading`."""

    def __init__(self, volumes: Mapping[str, Path]) -> None:
        self._volumes = dict(volumes)

    def read(self, path: str) -> bytes | None:
        """As `Reading.read`."""
        folder, name = posixpath.split(posixpath.normpath(path))
        if name not in self.names(folder):
            return None
        content = self._ask("cat", path)
        if content is not None and len(content) > LARGEST_FILE:
            raise Failed(path, "is larger than any configuration file", "look at it inside the guest")
        return content

    def names(self, directory: str) -> tuple[str, ...]:
        """As `Reading.names`."""
        listing = self._ask("ls", directory.rstrip("/") + "/") or b""
        found = listing.decode(errors="surrogateescape").split()
        return tuple(sorted(name.rstrip("/") for name in found if name not in {"./", "../"}))

    def _ask(self, command: str, path: str) -> bytes | None:
        mountpoint = max((point for point in self._volumes if _below(path, point)), key=len, default=None)
        if mountpoint is None:
            return None
        inside = "/" + posixpath.normpath(path).removeprefix(mountpoint).lstrip("/")
        if path.endswith("/"):
            inside = inside.rstrip("/") + "/"
        argv = ["grub-fstest", str(self._volumes[mountpoint].resolve()), command, inside]
        try:
            done = subprocess.run(argv, capture_output=True, timeout=_SECONDS, check=False)
        except OSError as error:
            raise Failed(
                "grub-fstest", error.strerror or "cannot be run", "apt-get install grub-common"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise Failed(argv[1], f"its file system was not read within {_SECONDS} s") from error
        return done.stdout if done.returncode == 0 else None


def _below(path: str, mountpoint: str) -> bool:
    return f"{path}/".startswith(mountpoint.rstrip("/") + "/")
