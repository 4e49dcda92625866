"""Real files for the engine's tests."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str, int], Path]:
    """A file of random bytes, the same in every run: by chance they could be a file system's signature."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.write_bytes(random.Random(name).randbytes(size))
        return path

    return make
