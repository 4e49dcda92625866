"""The images that passes are measured on: seeded, so that every run measures the same bytes.

A quarter zeros (written, not holes), a quarter text, half random, in stripes of 16 MiB.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STRIPE = 16 * 2**20
PAGE = 4096
RUN = 256 * 1024
LINE = 64
LINES = 4096


def build(path: Path, size: int, seed: int) -> None:
    """Write an image of `size` bytes, and flush it."""
    source = np.random.default_rng(seed)
    lines = _lines(source)
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, STRIPE):
            _write(file.fileno(), _stripe(at // STRIPE, lines, source)[: size - at], at)
        os.fsync(file.fileno())


def build_random(path: Path, size: int, seed: int) -> None:
    """Write an image of bytes that no compressor makes fewer, and flush it."""
    source = np.random.default_rng(seed)
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, STRIPE):
            _write(file.fileno(), memoryview(source.bytes(min(STRIPE, size - at))), at)
        os.fsync(file.fileno())


def build_volume(path: Path, size: int) -> None:
    """Write a volume of `size` bytes as a guest has it, and flush it: ext4, half of it files of this
    machine's /usr, the rest never written: zeros, which are in the image as such.

    Raises CalledProcessError when mkfs.ext4 fails.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _fill(Path(folder), size // 2)
        path.unlink(missing_ok=True)
        argv = ["mkfs.ext4", "-q", "-m", "0", "-d", folder, str(path), f"{size // 1024}k"]
        subprocess.run(argv, check=True, capture_output=True)
    with path.open("r+b", buffering=0) as file:
        _write_holes(file.fileno(), size)
        os.fsync(file.fileno())


def _fill(folder: Path, size: int) -> None:
    """Copy files of /usr, in the order of their names, as long as they have no more than `size` bytes."""
    for number, file in enumerate(sorted(Path("/usr").rglob("*"))):
        if file.is_symlink() or not file.is_file():
            continue
        size -= -(-file.stat().st_size // PAGE) * PAGE
        if size < 0:
            return
        shutil.copyfile(file, folder / str(number))


def _write_holes(fd: int, size: int) -> None:
    """Make every hole zeros that are allocated: a logical volume has no holes."""
    at = 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            data = size
        while at < data:
            length = min(STRIPE, data - at)
            _write(fd, memoryview(bytes(length)), at)
            at += length
        if at < size:
            at = min(size, os.lseek(fd, at, os.SEEK_HOLE))


def _stripe(number: int, lines: np.ndarray, source: np.random.Generator) -> memoryview:
    match number % 4:
        case 0:
            return memoryview(bytes(STRIPE))
        case 1:
            picks = source.integers(0, LINES, STRIPE // LINE)
            return memoryview(lines[picks].tobytes())
        case _:
            return memoryview(source.bytes(STRIPE))


def _lines(source: np.random.Generator) -> np.ndarray:
    """A vocabulary of lines of text, to be repeated at random."""
    letters = np.frombuffer(b"etaoinshrdlucmfw    ", dtype=np.uint8)
    lines = letters[source.integers(0, len(letters), (LINES, LINE))]
    lines[:, -1] = ord("\n")
    return lines


def overwrite_with_other_bytes(path: Path, other: Path) -> None:
    """Fill an existing image with the stripes of `other` in another order: allocated, nowhere the same."""
    size = other.stat().st_size
    stripes = max(1, size // STRIPE)
    with path.open("r+b", buffering=0) as into, other.open("rb", buffering=0) as source:
        os.posix_fallocate(into.fileno(), 0, size)
        for at in range(0, size, STRIPE):
            # Two stripes on, zeros meet random bytes and text meets random bytes.
            start = (at // STRIPE + 2) % stripes * STRIPE
            data = os.pread(source.fileno(), min(STRIPE, size - at), start)
            _write(into.fileno(), memoryview(data), at)
        os.fsync(into.fileno())


@dataclass(frozen=True, slots=True)
class Dirt:
    """1% of an image that has two states: half of it single 4 KiB pages, half runs of 256 KiB.

    `places` are (offset, length) in bytes, the same for both states.
    """

    places: tuple[tuple[int, int], ...]
    seed: int

    @classmethod
    def of(cls, size: int, seed: int, share: float = 0.01) -> "Dirt":
        source = np.random.default_rng(seed)
        half = int(size * share / 2)
        runs = source.choice(size // RUN, max(1, half // RUN), replace=False) * RUN
        pages = source.choice(size // PAGE, max(1, half // PAGE), replace=False) * PAGE
        places = [(int(at), RUN) for at in runs] + [(int(at), PAGE) for at in pages]
        return cls(tuple(sorted(places)), seed)

    @property
    def total(self) -> int:
        return sum(length for _, length in self.places)

    def apply(self, path: Path, state: int) -> None:
        """Bring an image into state 0 or 1, and flush it."""
        with path.open("r+b", buffering=0) as file:
            for (at, _), data in zip(self.places, self._data(state), strict=True):
                _write(file.fileno(), memoryview(data), at)
            os.fsync(file.fileno())

    def _data(self, state: int) -> Iterator[bytes]:
        source = np.random.default_rng((self.seed, state))
        for _, length in self.places:
            yield source.bytes(length)


def zero_bytes(path: Path, block: int) -> int:
    """How many bytes of an image are in blocks of zeros."""
    zeros = bytes(block)
    with path.open("rb") as file:
        return sum(len(data) for data in iter(lambda: file.read(block), b"") if data == zeros)


def warm(*paths: Path) -> None:
    """Read files into the page cache."""
    buffer = bytearray(2**20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _write(fd: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(fd, data, at)
        data, at = data[count:], at + count
