"""Compression: chosen by what is measured, bounded when it is undone."""

import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blocksync.wire.compression import Compressor, unpack
from blocksync.wire.frames import NO_TERMS, Codec, FrameKind, Violation
from blocksync.wire.link import Link, Lost

SEGMENT = 2**20
TEXT = b"".join(b"%d lines of a log that says the same things again\n" % n for n in range(40000))[:SEGMENT]
Wire = Callable[..., tuple[Link, Link]]


@contextmanager
def drained(link: Link) -> Iterator[None]:
    """Take in what comes."""

    def take_in() -> None:
        with suppress(Lost, OSError):
            while True:
                link.payload(link.receive(NO_TERMS))

    thread = threading.Thread(target=take_in)
    thread.start()
    yield
    link.close()
    thread.join()


def packed_after(link: Link, packer: Compressor, data: bytes) -> tuple[Codec, bytes | memoryview]:
    """What becomes of data once the link has been measured."""
    for _ in range(40):
        link.send(FrameKind.BYTES, data, size=len(data))
        packer.pack(memoryview(data))
    return packer.pack(memoryview(data))


@pytest.fixture
def slow_link(wire: Wire) -> Iterator[Link]:
    """A link that takes 60 MB/s."""
    ours, theirs = wire()
    ours.limit(60_000_000)
    with drained(theirs):
        yield ours


def test_what_shrinks_is_compressed_on_a_slow_link(slow_link: Link) -> None:
    codec, packed = packed_after(slow_link, Compressor(slow_link, ("zstd", "lz4"), 2), TEXT)
    assert codec in (Codec.ZSTD, Codec.LZ4)
    assert len(packed) < len(TEXT) / 2
    into = bytearray(len(TEXT))
    unpack(codec, memoryview(packed), memoryview(into))
    assert into == TEXT


def test_what_does_not_shrink_is_sent_as_it_is(slow_link: Link) -> None:
    noise = os.urandom(SEGMENT)
    packer = Compressor(slow_link, ("zstd", "lz4"), 2)
    packed_after(slow_link, packer, TEXT)
    codec, packed = packer.pack(memoryview(noise))
    assert codec is Codec.NONE
    assert packed == noise


def test_what_the_other_end_cannot_unpack_is_not_sent(slow_link: Link) -> None:
    assert packed_after(slow_link, Compressor(slow_link, ("lzma",), 2), TEXT)[0] is Codec.NONE
    assert packed_after(slow_link, Compressor(slow_link, ("lz4", "zlib"), 2), TEXT)[0] is Codec.LZ4


def test_an_end_that_has_only_zlib_gets_that(slow_link: Link) -> None:
    codec, packed = packed_after(slow_link, Compressor(slow_link, ("zlib",), 2), TEXT)
    assert codec is Codec.ZLIB
    assert zlib.decompress(packed) == TEXT


def test_nothing_is_compressed_for_a_link_that_is_faster(wire: Wire) -> None:
    ours, _ = wire()
    packer = Compressor(ours, ("zstd", "lz4"), 1)
    # As a link does that takes 100 GB/s.
    ours.sent, ours.busy = 100 * 2**30, 1.0
    assert packer.pack(memoryview(TEXT))[0] is Codec.NONE


PACKERS = {
    Codec.ZSTD: lambda data: zstandard.ZstdCompressor(level=1).compress(data),
    Codec.LZ4: lambda data: lz4.block.compress(data, store_size=False),
    Codec.ZLIB: lambda data: zlib.compress(data, 1),
}


@pytest.mark.parametrize("codec", PACKERS)
@given(data=st.binary(min_size=1, max_size=3000))
def test_what_was_packed_is_unpacked(codec: Codec, data: bytes) -> None:
    into = bytearray(len(data))
    unpack(codec, memoryview(PACKERS[codec](data)), memoryview(into))
    assert into == data


@pytest.mark.parametrize("codec", PACKERS)
@given(junk=st.binary(min_size=1, max_size=300))
def test_junk_is_a_violation_or_exactly_as_long(codec: Codec, junk: bytes) -> None:
    into = bytearray(100)
    try:
        unpack(codec, memoryview(junk), memoryview(into))
    except Violation:
        assert into == bytes(100)


@pytest.mark.parametrize("codec", PACKERS)
@pytest.mark.parametrize("length", [99, 101, 2**26])
def test_more_or_less_data_than_was_said_is_a_violation_at_once(codec: Codec, length: int) -> None:
    packed = PACKERS[codec](bytes(length))
    before = time.monotonic()
    with pytest.raises(Violation):
        unpack(codec, memoryview(packed), memoryview(bytearray(100)))
    assert time.monotonic() - before < 0.5


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.ZLIB])
def test_bytes_behind_the_data_are_a_violation(codec: Codec) -> None:
    with pytest.raises(Violation):
        unpack(codec, memoryview(PACKERS[codec](TEXT) + b"more"), memoryview(bytearray(len(TEXT))))
