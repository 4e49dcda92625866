"""Standing in for the guest that runs on Xen: its volumes' files, changed between passes."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def volume_mounted(volume: Path, at: Path) -> Iterator[Path]:
    """A volume's files, as the running guest would write them."""
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(volume), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)
