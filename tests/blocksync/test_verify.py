"""Verifying reports the truth about both sides."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from blocksync.errors import Refused
from blocksync.verify import compare

MIB = 2**20


def test_roots_are_blake3_of_the_ranges_and_differences_are_found(
    image: Callable[[str, int], Path], loop: Callable[..., Path], tmp_path: Path
) -> None:
    source, backing = image("source", 9 * MIB + 300), tmp_path / "backing"
    data = source.read_bytes()
    backing.write_bytes(bytes(MIB) + data + bytes(MIB - 300))
    target = loop(backing)
    same = compare(source, target, target_offset=MIB)
    assert same.equal
    assert same.source_root == same.target_root == blake3(data).hexdigest()
    with backing.open("r+b") as file:
        for offset in (MIB, 6 * MIB, 10 * MIB + 299):
            file.seek(offset)
            file.write(bytes([data[offset - MIB] ^ 1]))
    differing = compare(source, target, target_offset=MIB)
    assert not differing.equal
    assert differing.source_root == blake3(data).hexdigest()
    assert differing.target_root == blake3(backing.read_bytes()[MIB : MIB + len(data)]).hexdigest()
    assert differing.differing.pairs() == [(0, 4096), (5 * MIB, 4096), (9 * MIB, 300)]


def test_holes_count_as_the_zeros_they_are(tmp_path: Path) -> None:
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    data = bytes(9 * MIB) + os.urandom(5000) + bytes(20 * MIB) + os.urandom(100)
    full.write_bytes(data)
    with sparse.open("wb") as file:
        for at in (9 * MIB, len(data) - 100):
            file.seek(at)
            file.write(data[at : at + 5000])
    assert sparse.stat().st_blocks < full.stat().st_blocks
    for one, other in ((sparse, full), (full, sparse)):
        same = compare(one, other)
        assert same.equal
        assert same.source_root == blake3(data).hexdigest()
    with sparse.open("r+b") as file:
        file.seek(24 * MIB)
        file.write(b"x")
    assert compare(full, sparse).differing.pairs() == [(24 * MIB, 4096)]


def test_a_target_that_cannot_hold_the_source_is_refused(image: Callable[[str, int], Path]) -> None:
    source, target = image("source", MIB), image("target", MIB)
    for options in ({"target_offset": 512}, {"size": MIB + 1}, {"target_offset": 7}):
        with pytest.raises(Refused):
            compare(source, target, **options)
