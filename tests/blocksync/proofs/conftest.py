"""One forkserver for all proofs."""

from collections.abc import Iterator

import pytest
from forked import Engine, build_interposer


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Runs `blocksync` in forked processes whose system calls can be watched and made to fail."""
    started = Engine(build_interposer(tmp_path_factory.mktemp("interpose")))
    yield started
    started.close()
