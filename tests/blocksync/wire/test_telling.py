"""What a target's end says of what it holds: as much in one frame as needs no reading."""

import os
from pathlib import Path

import pytest
from played_ends import BLOCK, Serve, Served, digests_of, next_frame

from blocksync.digests.hashes import XXH3
from blocksync.wire.frames import SEGMENT, FrameKind

SIZE = 8 * SEGMENT
HOLE = (2 * SEGMENT, 3 * SEGMENT)
DATA = [(0, 2 * SEGMENT), (5 * SEGMENT, 3 * SEGMENT)]
ZERO = XXH3.digest(bytes(BLOCK))
UNKNOWN = bytes(XXH3.size)

Told = list[tuple[FrameKind, int, int]]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What `serve_target` takes for a target: random bytes around a hole."""
    path = tmp_path / "target"
    with path.open("wb") as file:
        file.truncate(BLOCK + SIZE)
        for offset, size in DATA:
            os.pwrite(file.fileno(), os.urandom(size), BLOCK + offset)
    return path


def told(served: Served) -> tuple[Told, bytes]:
    """The frames that tell everything, and the digests in them."""
    frames: Told = []
    digests = bytearray()
    while sum(size for _, _, size in frames) < SIZE:
        header, payload = next_frame(served)
        frames.append((header.kind, header.offset, header.size))
        digests += payload
    return frames, bytes(digests)


def test_what_is_neither_known_nor_compared_is_told_in_one_frame(target: Path, serve_target: Serve) -> None:
    frames, _ = told(serve_target(SIZE, compare=False))
    first, last = ((FrameKind.UNKNOWN, *data) for data in DATA)
    assert frames == [first, (FrameKind.HOLE, *HOLE), last]


def test_a_hole_is_told_in_one_frame_and_the_rest_as_it_is_read(target: Path, serve_target: Serve) -> None:
    frames, digests = told(serve_target(SIZE))
    assert frames == [
        *((FrameKind.DIGESTS, at * SEGMENT, SEGMENT) for at in (0, 1)),
        (FrameKind.HOLE, *HOLE),
        *((FrameKind.DIGESTS, at * SEGMENT, SEGMENT) for at in (5, 6, 7)),
    ]
    held = digests_of(target.read_bytes()[BLOCK:])
    hole = slice(HOLE[0] // BLOCK * XXH3.size, sum(HOLE) // BLOCK * XXH3.size)
    assert digests == held[: hole.start] + held[hole.stop :]


@pytest.mark.parametrize("compare", [False, True])
def test_a_table_learns_what_is_told(target: Path, serve_target: Serve, *, compare: bool) -> None:
    table = memoryview(bytearray(SIZE // BLOCK * XXH3.size))
    table[: XXH3.size] = known = os.urandom(XXH3.size)
    frames, digests = told(serve_target(SIZE, compare=compare, table=table))
    assert {kind for kind, _, _ in frames} == {FrameKind.DIGESTS}
    assert digests == table
    if compare:
        assert digests == known + digests_of(target.read_bytes()[BLOCK:])[XXH3.size :]
    else:
        blocks = [UNKNOWN] * (SIZE // BLOCK)
        blocks[HOLE[0] // BLOCK : sum(HOLE) // BLOCK] = [ZERO] * (HOLE[1] // BLOCK)
        assert digests == known + b"".join(blocks[1:])
