"""Real files and loop devices for the engine's tests."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Attach = Callable[..., Path]


def argv(*words: object) -> str:
    """Run a command; its standard output."""
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def loop() -> Iterator[Attach]:
    """Attach a file to a loop device: `loop(path, "--sector-size", 4096)`; all are detached at the end."""
    attached: list[Path] = []

    def attach(path: Path, *options: object) -> Path:
        device = Path(argv("losetup", "--find", "--show", *options, path).strip())
        attached.append(device)
        return device

    yield attach
    for device in attached:
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str, int], Path]:
    """A file of random bytes."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        return path

    return make
