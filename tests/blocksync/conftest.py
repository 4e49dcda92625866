"""Real files for the engine's tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str, int], Path]:
    """A file of random bytes."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        return path

    return make
