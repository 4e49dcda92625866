import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from played_ends import BLOCK, digests_of

from blocksync.devices.device import measure, open_source
from blocksync.digests.hashes import BLAKE3, XXH3, Hash
from blocksync.ends.reading import Desk, Hasher
from blocksync.ends.scanning import Scanner
from blocksync.errors import Failed
from blocksync.wire import frames
from blocksync.wire.frames import SEGMENT

Found = list[tuple[int, int]]


@contextmanager
def scanning(
    path: Path, kind: Hash, expected: bytes, *, direct: bool = False
) -> Iterator[Callable[[], Found]]:
    """Look through all of a file: where segments came, and how long."""
    device = measure(path)
    terms = frames.terms(device.size, BLOCK, kind.size)
    with open_source(device, direct=direct) as opened:
        scanner = Scanner(opened, terms, Hasher(terms, kind), memoryview(expected))
        desk = Desk(terms)

        def look() -> Found:
            found, offset = [], 0
            while offset < device.size:
                offset, data = scanner.next(desk, offset, device.size)
                assert bytes(data) == path.read_bytes()[offset : offset + len(data)]
                slots = terms.blocks(len(data)) * kind.size
                assert bytes(desk.digests[:slots]) == digests_of(bytes(data), kind)
                found += [(offset, len(data))] * bool(data)
                offset += len(data)
            return [*found, (-1, scanner.bytes_read)]

        yield look


@pytest.mark.parametrize("direct", [False, True])
def test_only_segments_that_may_differ_come(image: Callable[[str, int], Path], *, direct: bool) -> None:
    path = image("source", 5 * SEGMENT + 700)
    expected = bytearray(digests_of(path.read_bytes(), XXH3))
    at = 2 * SEGMENT + 300 * 1024
    expected[at // BLOCK * 16] ^= 1
    with scanning(path, XXH3, expected, direct=direct) as look:
        start = 2 * SEGMENT if direct else 2 * SEGMENT + 256 * 1024
        assert look() == [(start, SEGMENT), (-1, 5 * SEGMENT + 700)]


def test_holes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.truncate(6 * SEGMENT)
        file.seek(2 * SEGMENT)
        file.write(os.urandom(SEGMENT))
    with scanning(path, XXH3, digests_of(path.read_bytes(), XXH3)) as look:
        holes = [(number * SEGMENT, SEGMENT) for number in (0, 1, 3, 4, 5)]
        assert look() == [*holes, (-1, SEGMENT)]


def test_other_digests_are_left_to_who_compares(image: Callable[[str, int], Path]) -> None:
    path = image("source", SEGMENT + 5)
    with scanning(path, BLAKE3, digests_of(path.read_bytes(), BLAKE3)) as look:
        assert look() == [(0, SEGMENT), (SEGMENT, 5), (-1, SEGMENT + 5)]


def test_a_source_that_ends_early_is_an_error_that_says_where(image: Callable[[str, int], Path]) -> None:
    path = image("source", 3 * SEGMENT)
    expected = digests_of(path.read_bytes(), XXH3)
    with scanning(path, XXH3, expected) as look:
        os.truncate(path, 2 * SEGMENT + 8192)
        with pytest.raises(
            Failed, match=f"cannot be read at byte {2 * SEGMENT + 8192}: the device ends there"
        ):
            look()
