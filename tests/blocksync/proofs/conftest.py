"""One forkserver for all proofs, and a place where flushing costs nothing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import SMALL, Engine, build_interposer

from blocksync.digests import digest_file


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Digest files have chunks as small here as in the forked commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_file, "CHUNK_DIGESTS", SMALL["blocksync.digests.digest_file.CHUNK_DIGESTS"])
        yield


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Runs `blocksync` in forked processes whose system calls can be watched and made to fail."""
    started = Engine(build_interposer(tmp_path_factory.mktemp("interpose")))
    yield started
    started.close()


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory: what a flush means is modelled in write_log.py, so no disk has to be waited for."""
    folder = tmp_path_factory.mktemp("memory")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "proofs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def workplace(memory: Path) -> Iterator[Path]:
    """An empty folder in memory."""
    folder = memory / "work"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-r", folder], check=True)
