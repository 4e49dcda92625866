"""Far ends on this machine: child processes whose PATH has blocksync, or nothing but one Python."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_transport import Local

BESIDE_PYTHON = Path(sys.executable).parent
SYSTEM = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")

# The bench has the shaped link.
sys.path.append(str(Path(__file__).parents[3]))


@pytest.fixture
def installed() -> Local:
    """A far end with xen2kvm installed."""
    return Local(env={**os.environ, "PATH": os.pathsep.join([str(BESIDE_PYTHON), *SYSTEM])})


@pytest.fixture
def with_only(tmp_path: Path) -> Callable[[Path], Local]:
    """A far end that has one Python, blkid and a shell."""

    def make(python: Path) -> Local:
        folder = tmp_path / "far-bin"
        folder.mkdir()
        (folder / "python").symlink_to(python)
        blkid = shutil.which("blkid")
        assert blkid is not None
        (folder / "blkid").symlink_to(blkid)
        return Local(prefix=("/usr/bin/env", f"PATH={folder}"))

    return make


@pytest.fixture
def mounted_loop(tmp_path: Path, loop: Callable[..., Path]) -> Iterator[Path]:
    """A loop device that is mounted."""
    image = tmp_path / "mounted.img"
    image.write_bytes(bytes(8 * 2**20))
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    device = loop(image)
    folder = tmp_path / "mountpoint"
    folder.mkdir()
    subprocess.run(["mount", device, folder], check=True)
    yield device
    subprocess.run(["umount", folder], check=True)
