"""What the native core promises to whoever calls it directly."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from blocksync._copy import Copy, count_runs, find_changed, hash_blocks, mark_differences, xxh3_128


@contextmanager
def temporary_file(data: bytes | bytearray) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


@given(st.binary(max_size=5000))
def test_xxh3_is_the_canonical_form_of_the_reference(data: bytes) -> None:
    assert xxh3_128(data) == xxhash.xxh3_128(data).digest()


@given(st.binary(max_size=3000), st.integers(1, 700), st.integers(0, 3))
def test_hash_blocks_fills_one_slot_a_block(data: bytes, block: int, first: int) -> None:
    blocks = -(-len(data) // block)
    slots = bytearray(16 * (first + blocks))
    assert hash_blocks(data, len(data), block, slots, first) == blocks
    pieces = [data[at : at + block] for at in range(0, len(data), block)]
    assert bytes(slots) == bytes(16 * first) + b"".join(xxhash.xxh3_128(piece).digest() for piece in pieces)


@given(st.integers(0, 3000), st.integers(0, 50), st.data())
def test_what_is_as_expected_is_skipped_by_pieces(size: int, base: int, draw: st.DataObject) -> None:
    block, piece, pieces = (draw.draw(st.integers(1, most)) for most in (40, 5, 4))
    data = bytes(number * number % 251 for number in range(size))
    blocks = -(-size // block)
    first = draw.draw(st.integers(0, blocks))
    odd = draw.draw(st.sets(st.integers(0, max(blocks - 1, 0)), max_size=3))
    digests = [xxhash.xxh3_128(data[at : at + block]).digest() for at in range(0, size, block)]
    expected = b"".join(bytes(16) if number in odd else told for number, told in enumerate(digests))
    offset, step, memory = min(first * block, size - size % block), piece * block, pieces * piece * block
    starts = [
        at for at in range(offset, size, step) if odd & set(range(at // block, -(-(at + step) // block)))
    ]
    start = starts[0] if starts else size
    length = min(memory, size - start) if starts else 0
    room, slots = bytearray(memory), bytearray(pieces * piece * 16)
    with temporary_file(bytes(base) + data) as fd:
        found = find_changed(
            fd,
            base,
            offset,
            size,
            align=1,
            block_size=block,
            piece=step,
            data=room,
            digests=slots,
            expected=expected,
        )
    assert found == (start, length)
    assert room[:length] == data[start : start + length]
    there = digests[start // block :][: -(-length // block)]
    assert bytes(slots[: 16 * len(there)]) == b"".join(there)


@pytest.mark.parametrize("change", [4096 * 3, 4096 * 7])
def test_what_cannot_be_read_is_left_to_the_caller(change: int) -> None:
    data = bytearray(os.urandom(8 * 4096))
    expected = b"".join(xxh3_128(data[at : at + 4096]) for at in range(0, len(data), 4096)) + bytes(16 * 8)
    data[change] ^= 1
    with temporary_file(data) as fd:
        found = find_changed(
            fd,
            0,
            0,
            16 * 4096,
            align=1,
            block_size=4096,
            piece=4096,
            data=bytearray(8 * 4096),
            digests=bytearray(8 * 16),
            expected=expected,
        )
    assert found == (change, -1)


def test_a_search_for_changes_in_too_small_a_memory_is_refused() -> None:
    good = {"align": 1, "block_size": 512, "piece": 1024, "data": bytearray(1024), "digests": bytearray(32)}
    good |= {"expected": bytes(16 * 4)}
    small = {"data": bytearray(1023), "digests": bytearray(31), "expected": bytes(63)}
    odd = {"align": 0, "piece": 1000, "block_size": 0}
    for name, value in (small | odd).items():
        with pytest.raises(ValueError, match=r"smaller than|do not fit"):
            find_changed(-1, 0, 0, 2048, **good | {name: value})  # type: ignore[arg-type]
    for offset, end in [(-512, 2048), (1024, 512), (100, 2048)]:
        with pytest.raises(ValueError, match="do not fit"):
            find_changed(-1, 0, offset, end, **good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smaller than"):
        find_changed(-1, 0, 0, 2048, **good | {"align": 1024})  # type: ignore[arg-type]


@given(st.binary(max_size=40), st.integers(0, 320))
def test_runs_are_counted_as_one_reads_them(bits: bytes, blocks: int) -> None:
    blocks = min(blocks, 8 * len(bits))
    text = "".join(str(bits[i // 8] >> i % 8 & 1) for i in range(blocks))
    assert count_runs(bits, blocks) == len([run for run in text.split("0") if run])


@given(st.binary(max_size=600), st.integers(1, 64), st.integers(0, 9), st.sets(st.integers(0, 599)))
def test_differences_are_marked_at_their_block(data: bytes, block: int, first: int, flips: set[int]) -> None:
    other = bytearray(data)
    for at in flips:
        if at < len(other):
            other[at] ^= 1
    blocks = {at // block for at in flips if at < len(data)}
    bits = bytearray((first + -(-len(data) // block)) // 8 + 1)
    assert mark_differences(data, other, len(data), block, bits, first) == len(blocks)
    assert {i - first for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1} == blocks


def bad_copies() -> list[dict[str, object]]:
    return [
        {"size": -1},
        {"block_size": 0},
        {"segment_size": 4096 * 3 + 1},
        {"changed": bytearray(0)},
        {"digests": bytearray(16 * 3)},
        {"digest_size": 32},
        {"source_align": 8192},
        {"extents": b"123"},
        {"extents": extents((0, 4096), (0, 4096))},
        {"extents": extents((512, 4096))},
        {"extents": extents((0, 100))},
        {"extents": extents((0, 0))},
        {"extents": extents((0, 2**62))},
        {"extents": extents((16384, 4096))},
        {"extents": extents((-4096, 4096))},
    ]


def extents(*pairs: tuple[int, int]) -> bytes:
    return b"".join(number.to_bytes(8, "little", signed=True) for pair in pairs for number in pair)


@pytest.mark.parametrize("bad", bad_copies(), ids=str)
def test_arguments_that_do_not_fit_are_refused(bad: dict[str, object]) -> None:
    good: dict[str, object] = {
        "source_fd": -1,
        "target_fd": -1,
        "tail_fd": -1,
        "size": 16384,
        "block_size": 4096,
        "segment_size": 8192,
        "changed": bytearray(1),
        "gate": list,
        "digests": bytearray(64),
    }
    Copy(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Copy(**{**good, **bad})  # type: ignore[arg-type]


def test_a_bad_descriptor_is_a_fault_with_its_number_and_offset() -> None:
    copy = Copy(
        source_fd=-1,
        target_fd=-1,
        tail_fd=-1,
        size=4096,
        block_size=4096,
        segment_size=4096,
        changed=bytearray(1),
        gate=list,
    )
    copy.work()
    assert copy.fault() == ("source read", 0, 9)
    assert copy.counters().done == 0


def test_what_the_gate_raises_comes_out_and_nothing_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(65536))
    target.write_bytes(bytes(65536))

    def gate() -> None:
        raise LookupError("closed")

    with source.open("rb") as left, target.open("r+b") as right:
        copy = Copy(
            source_fd=left.fileno(),
            target_fd=right.fileno(),
            tail_fd=right.fileno(),
            size=65536,
            block_size=4096,
            segment_size=65536,
            changed=bytearray(2),
            gate=gate,
        )
        copy.work()
    with pytest.raises(LookupError, match="closed"):
        copy.fault()
    assert target.read_bytes() == bytes(65536)


def test_buffers_are_released_even_when_the_collector_finds_a_cycle() -> None:
    code = (
        "import gc; from blocksync._copy import Copy; held = [];"
        "copy = Copy(source_fd=-1, target_fd=-1, tail_fd=-1, size=4096, block_size=4096, segment_size=4096,"
        " changed=bytearray(1), digests=bytearray(16), gate=held.append);"
        "held.append(copy); del held, copy; gc.collect()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_stop_after_a_segment_was_read_and_before_the_first_write_is_no_fault(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(65536))
    target.write_bytes(bytes(65536))

    def stop_and_hash(block: memoryview) -> bytes:
        copy.stop()
        return xxh3_128(block)

    with source.open("rb") as left, target.open("r+b") as right:
        copy = Copy(
            source_fd=left.fileno(),
            target_fd=right.fileno(),
            tail_fd=right.fileno(),
            size=65536,
            block_size=4096,
            segment_size=65536,
            changed=bytearray(2),
            digests=bytearray(16 * 16),
            hasher=stop_and_hash,
            gate=lambda: None,
        )
        copy.work()
    assert copy.fault() is None
    assert copy.counters().done == 0
    assert target.read_bytes() == bytes(65536)
