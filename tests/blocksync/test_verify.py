"""Verifying reports the truth about both sides."""

from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

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
    assert differing.differing.pairs() == [(0, 4096), (5 * MIB, 4096), (9 * MIB, 300)]
