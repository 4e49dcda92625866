"""What a planner may ask of a guest's files: their content and their folders' names, nothing else.

Paths are the guest's own and absolute (`/etc/fstab`). Links are followed as the guest would follow them,
never out of it.
"""

from typing import Protocol

LARGEST_FILE = 16 * 1024 * 1024
"""Bytes. No configuration file comes near it; a larger one is a mistake or an attack."""

LARGEST_IMAGE = 256 * 1024 * 1024
"""The same of an initramfs. One with every driver and firmware has 150 MiB."""


class Reading(Protocol):
    """A guest's files, read-only."""

    def read(self, path: str) -> bytes | None:
        """Content of the regular file at `path`; None when it is absent or not a regular file.

        Raises `Failed` for a file larger than `LARGEST_FILE` or one that cannot be read.
        """

    def names(self, directory: str) -> tuple[str, ...]:
        """Every name in `directory`, sorted, without `.` and `..`; empty when there is no such folder."""
