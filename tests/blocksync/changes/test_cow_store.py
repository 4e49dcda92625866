"""A store lists what it lists; one that the kernel would not have written lists nothing."""

import random
import struct

import pytest
from exception_store import FileReader, store
from hypothesis import given, settings
from hypothesis import strategies as st

import bounded
from blocksync.changes import cow_store
from blocksync.changes.candidates import ListLostError

CHUNK = 4096
ORIGIN = 3000 * CHUNK


@pytest.fixture
def listed(tmp_path):
    """A function from a store's bytes to the extents that it lists."""

    def read(image, origin_size=ORIGIN):
        path = tmp_path / "store"
        path.write_bytes(image)
        return cow_store.changed(FileReader(path), len(image), origin_size).pairs()

    return read


def test_a_new_store_lists_nothing(listed):
    assert listed(store([])) == []


@pytest.mark.parametrize("chunk_size", [512, 4096, 65536])
@pytest.mark.parametrize("areas", [0.5, 1, 2.5])
def test_every_written_chunk_is_listed_in_any_order(listed, chunk_size, areas):
    count = int(areas * chunk_size // 16)
    written = random.Random(1).sample(range(2 * count), count)
    chunks = 4 + int((areas + 1) * (chunk_size // 16 + 1))
    extents = listed(store(written, chunk_size=chunk_size, chunks=chunks), 2 * count * chunk_size)
    covered = {
        start // chunk_size + step for start, length in extents for step in range(length // chunk_size)
    }
    assert covered == set(written)
    assert sum(length for _, length in extents) == count * chunk_size


def test_neighbours_are_one_extent_and_the_last_chunk_ends_with_its_origin(listed):
    assert listed(store([7, 2, 1, 3]), 7 * CHUNK + 512) == [(CHUNK, 3 * CHUNK), (7 * CHUNK, 512)]


def test_a_store_that_is_full_to_its_last_chunk_lists_all(listed):
    image = store(range(256), chunks=258)
    assert listed(image) == [(0, 256 * CHUNK)]


def test_only_the_areas_that_are_filled_are_read_and_at_most_as_many_again(tmp_path):
    path = tmp_path / "store"
    path.write_bytes(store(range(2000), chunks=200_000 // 8))
    reader = FileReader(path)
    assert cow_store.changed(reader, path.stat().st_size, ORIGIN).total == 2000 * CHUNK
    assert reader.pieces <= 1 + 2 * 8


def test_a_store_that_grows_while_it_is_read_lists_all_that_was_there_before(tmp_path):
    before, after = store(range(700)), store(range(1400))
    path = tmp_path / "store"
    path.write_bytes(before)
    reader = FileReader(path)

    def growing(offsets, length):
        pieces = reader(offsets, length)
        if reader.pieces > 1:
            path.write_bytes(after)
        return pieces

    listed = cow_store.changed(growing, len(before), ORIGIN)
    assert listed.coalesce().pairs()[0][1] >= 700 * CHUNK


def header(magic=0x70416E53, valid=1, version=1, sectors=8):
    return struct.pack("<4I", magic, valid, version, sectors)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (header(magic=0), "no header"),
        (header(valid=0), "invalid"),
        (header(valid=2), "invalid"),
        (header(version=2), "version 2"),
        (header(sectors=0), "chunk size"),
        (header(sectors=24), "chunk size"),
        (header(sectors=2**31), "chunk size"),
    ],
)
def test_a_header_that_is_not_right_loses_the_list(listed, start, reason):
    image = store([1, 2])
    image[: len(start)] = start
    with pytest.raises(ListLostError, match=reason):
        listed(image)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([(ORIGIN // CHUNK, 2)], "past the end"),
        ([(2**64 - 1, 2)], "past the end"),
        ([(1, 4096)], "hold no data"),
        ([(1, 2**63)], "hold no data"),
        ([(1, 1)], "hold no data"),
        ([(1, 258)], "hold no data"),
        ([(1, 2), (1, 3)], "twice"),
        ([(1, 2), (2, 2)], "twice"),
        ([(1, 2), (2, 0), (3, 3)], "after its end"),
        ([(1, 2), (2, 0)], "after its end"),
    ],
)
def test_an_impossible_entry_loses_the_list(listed, entries, reason):
    image = store([])
    for place, entry in enumerate(entries):
        struct.pack_into("<QQ", image, CHUNK + place * 16, *entry)
    with pytest.raises(ListLostError, match=reason):
        listed(image)


def test_a_store_that_ends_too_early_loses_the_list(tmp_path):
    path = tmp_path / "store"
    image = store(range(600))
    path.write_bytes(image[: 300 * CHUNK])
    with pytest.raises(ListLostError, match="cannot be read"):
        cow_store.changed(FileReader(path), len(image), ORIGIN)


def test_an_empty_store_loses_the_list(listed):
    with pytest.raises(ListLostError, match="header"):
        listed(b"")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40 * 512), st.binary(min_size=1, max_size=24)), max_size=6))
def test_whatever_a_store_holds_the_answer_is_bounded(tmp_path_factory, damage):
    image = store(range(40), chunk_size=512, chunks=40)
    for at, piece in damage:
        image[at : at + len(piece)] = piece
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(image)
    reader = FileReader(path)
    try:
        extents = cow_store.changed(reader, len(image), 50 * 512)
    except ListLostError:
        return
    finally:
        assert reader.pieces <= 1 + 40
    assert all(0 <= start < start + length <= 50 * 512 for start, length in extents.pairs())


_ENDLESS = """
import struct, sys
from blocksync.changes import cow_store
from blocksync.changes.candidates import ListLostError

store_size, origin_size, sectors, step = (int(word) for word in sys.argv[1:])
chunk = sectors * 512
entries = chunk // 16

def read(offsets, length):
    # Every area is full, and no entry in it is impossible by itself.
    if offsets == [0]:
        return [struct.pack("<4I", 0x70416E53, 1, 1, sectors).ljust(length, b"\\0")]
    pieces = []
    for offset in offsets:
        area = (offset // chunk - 1) // (entries + 1)
        numbers = range(area * entries, (area + 1) * entries)
        pairs = (each for n in numbers for each in (n * step, 2 + n + n // entries))
        pieces.append(struct.pack(f"<{2 * entries}Q", *pairs))
    return pieces

try:
    print(cow_store.changed(read, store_size, origin_size).total)
except ListLostError as lost:
    print(lost)
"""


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((2**60, 40 * 2**20, 8, 1), "past the end"),
        ((2**60, 40 * 2**20, 8, 0), "twice"),
        ((2**60, 2**40, 8, 2**20), "past the end"),
        ((2**60, 2**62, 128, 1), "would be of 70368744177664 chunks"),
    ],
    ids=["past the end", "one again and again", "far apart", "of a huge origin"],
)
def test_a_list_takes_memory_as_its_volume_does_whatever_its_store_says(sizes, said):
    assert said in bounded.run(_ENDLESS, *sizes, memory=1 << 30, seconds=60)


def test_a_list_that_is_too_long_to_save_time_is_lost(monkeypatch, listed):
    monkeypatch.setattr(cow_store, "_MOST_ENTRIES", 500)
    assert listed(store(range(200))) != []
    with pytest.raises(ListLostError, match="longer than"):
        listed(store(range(600)))
