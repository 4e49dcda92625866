"""Bytes through non-blocking descriptors: all of them, in order, and never for longer than was asked."""

import itertools
import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocksync._flow import drain, fill

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """The reading and the writing end, neither of which blocks."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def test_it_takes_what_is_there_and_waits_no_longer_than_it_was_told(pipe: Pipe) -> None:
    read, write = pipe
    os.write(write, b"abc")
    into = bytearray(5)
    before = time.monotonic()
    assert fill(read, [into], 50) == (3, False)
    assert 0.04 < time.monotonic() - before < 2
    assert into == b"abc\0\0"


def test_a_pipe_that_nobody_empties_takes_what_it_holds(pipe: Pipe) -> None:
    read, write = pipe
    data = bytes(2**20)
    taken = drain(write, [data], 50)
    assert 0 < taken < len(data)
    assert drain(write, [data], 10) == 0
    assert fill(read, [bytearray(taken)], 0) == (taken, False)


def test_the_end_is_told_with_what_came_before_it() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.write(write, b"last")
    os.close(write)
    into = bytearray(8)
    assert fill(read, [into], 1000) == (4, True)
    assert fill(read, [into], 1000) == (0, True)
    os.close(read)


def test_a_reader_that_is_gone_is_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        drain(write, [b"x"], 10)
    os.close(write)


def test_more_buffers_than_it_knows_are_refused_and_none_is_touched(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="4 are the most"):
        drain(pipe[1], [b"x"] * 5, 10)
    assert fill(pipe[0], [bytearray(1)], 0) == (0, False)


def test_what_may_not_be_written_to_is_no_place_to_read_into(pipe: Pipe) -> None:
    with pytest.raises(BufferError):
        fill(pipe[0], [bytearray(1), b"fixed"], 10)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=70_000), min_size=1, max_size=4), st.data())
def test_all_bytes_arrive_in_order_however_they_are_cut(
    pipe: Pipe, parts: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    edges = [0, *cuts, len(whole)]
    into = [bytearray(end - start) for start, end in itertools.pairwise(edges)]
    sending = threading.Thread(target=lambda: drain(pipe[1], parts, 10_000))
    sending.start()
    assert fill(pipe[0], into, 10_000) == (len(whole), False)
    sending.join()
    assert b"".join(into) == whole
