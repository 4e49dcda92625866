"""The oracle itself: right by inspection of plain bytes, and the same under every Python that is here."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import reference

BLOCK = 1000
SIZE = 10 * BLOCK + 137
OFFSET = 313

# Run by the interpreter under test, which may be Python 2: makes the pass and prints what was found.
_CALLER = """
import binascii, os, sys
sys.path.insert(0, sys.argv[1])
import reference
source = os.open(sys.argv[2], os.O_RDONLY)
target = os.open(sys.argv[3], os.O_RDWR)
first = reference.run(source, target, {size}, {offset}, {block})
again = reference.run(source, target, {size}, {offset}, {block}, known=first.digests)
print(first.bytes_changed)
print(",".join("%d+%d" % extent for extent in first.extents))
print(",".join(binascii.hexlify(digest).decode("ascii") for digest in first.digests))
print(again.bytes_changed)
"""


@contextmanager
def descriptors(source: Path, target: Path) -> Iterator[tuple[int, int]]:
    fds = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR)
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A source, and a target that holds it at OFFSET except in blocks 0, 3, 4 and the short last one."""
    source, target = tmp_path / "source", tmp_path / "target"
    data = os.urandom(SIZE)
    held = bytearray(data)
    for block in (0, 3, 4, 10):
        held[block * BLOCK + 5] ^= 0x80
    source.write_bytes(data)
    target.write_bytes(b"before" * 100 + bytes(SIZE + 5000))
    with target.open("r+b") as opened:
        opened.seek(OFFSET)
        opened.write(held)
    return source, target


EXTENTS = [(0, BLOCK), (3 * BLOCK, 2 * BLOCK), (10 * BLOCK, 137)]


def _expected(source: Path, target: Path) -> bytes:
    before = target.read_bytes()
    return before[:OFFSET] + source.read_bytes() + before[OFFSET + SIZE :]


def _interpreters() -> list[str]:
    """Every Python found, by version: on PATH, and those that pyenv keeps."""
    names = [f"python{version}" for version in ("2.6", "2.7", *(f"3.{minor}" for minor in range(6, 15)))]
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for name in names:
        candidates = [shutil.which(name), *map(str, sorted(kept.glob(f"*/bin/{name}")))]
        found += [path for path in candidates if path and _starts(path)][:1]
    return found


def _starts(path: str) -> bool:
    return subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0


def test_the_reference_writes_the_blocks_that_differ_and_nothing_else(pair: tuple[Path, Path]) -> None:
    source, target = pair
    expected = _expected(source, target)
    with descriptors(source, target) as (left, right):
        report = reference.run(left, right, SIZE, OFFSET, BLOCK)
    assert target.read_bytes() == expected
    assert report.extents == EXTENTS
    assert (report.bytes_total, report.bytes_changed) == (SIZE, 3 * BLOCK + 137)
    data = source.read_bytes()
    assert report.digests == [
        hashlib.sha256(data[at : at + BLOCK]).digest() for at in range(0, SIZE, BLOCK)
    ]  # fmt: skip


def test_the_reference_with_digests_does_not_read_the_target(pair: tuple[Path, Path]) -> None:
    source, target = pair
    with descriptors(source, target) as (left, right):
        known = reference.digests(right, SIZE, OFFSET, BLOCK)
        # What the digests say counts, not what the target holds by now.
        os.pwrite(right, b"unseen", OFFSET + BLOCK)
        report = reference.run(left, right, SIZE, OFFSET, BLOCK, known)
    assert report.extents == EXTENTS
    assert target.read_bytes()[OFFSET + BLOCK :][:6] == b"unseen"


def test_the_reference_refuses_what_does_not_fit_before_it_writes(pair: tuple[Path, Path]) -> None:
    source, target = pair
    before = target.read_bytes()
    with descriptors(source, target) as (left, right):
        for size, offset, known in (
            (SIZE + 1, 0, None),
            (SIZE, len(before), None),
            (-1, 0, None),
            (SIZE, 0, []),
        ):
            with pytest.raises(ValueError):
                reference.run(left, right, size, offset, BLOCK, known)
    assert target.read_bytes() == before


@pytest.mark.parametrize("interpreter", _interpreters())
def test_every_python_at_hand_makes_the_same_pass(
    pair: tuple[Path, Path], tmp_path: Path, interpreter: str
) -> None:
    source, target = pair
    expected = _expected(source, target)
    module = tmp_path / "module"
    module.mkdir()
    shutil.copy(reference.__file__, module)
    script = _CALLER.format(size=SIZE, offset=OFFSET, block=BLOCK)
    argv = [interpreter, "-c", script, str(module), str(source), str(target)]
    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": ""}
    )
    changed, extents, digests, again = done.stdout.split("\n")[:4]
    assert target.read_bytes() == expected
    assert extents == ",".join(f"{offset}+{length}" for offset, length in EXTENTS)
    assert (int(changed), int(again)) == (3 * BLOCK + 137, 0)
    data = source.read_bytes()
    wanted = [hashlib.sha256(data[at : at + BLOCK]).hexdigest() for at in range(0, SIZE, BLOCK)]
    assert digests.split(",") == wanted


def test_nothing_in_the_reference_is_newer_than_python_2_6() -> None:
    program = "import sys, vermin; vermin.main()"
    argv = [sys.executable, "-c", program, "-t=2.6-", "-t=3.0-", "--violations", str(reference.__file__)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
