"""Frame headers: what is let through is possible, whatever bytes come."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocksync.wire import frames
from blocksync.wire.frames import (
    END_OF_OFFSETS,
    HEADER,
    LARGEST_MESSAGE,
    LARGEST_READ,
    MESSAGES,
    MOST_BLOCKS,
    MOST_DIGESTS,
    MOST_EXTENTS,
    NO_TERMS,
    Codec,
    FrameHeader,
    FrameKind,
    Terms,
    Violation,
    check,
)

WHOLE = 2**64 - 1
numbers = st.one_of(
    st.integers(0, WHOLE),
    st.integers(0, 2**21),
    st.sampled_from([0, 1, 511, 4096, 65536, 2**20, 2**31, 2**32, 2**63 - 1, 2**63, WHOLE]),
)
terms = st.builds(
    frames.terms,
    st.one_of(st.integers(0, 2**50), st.integers(0, 2**22)),
    st.integers(12, 24).map(lambda power: 2**power),
    st.sampled_from([16, 20, 32]),
)
headers = st.builds(
    FrameHeader,
    st.sampled_from(FrameKind),
    st.sampled_from(Codec),
    st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**17)),
    numbers,
    numbers,
)


@given(st.binary(min_size=HEADER.size, max_size=HEADER.size), terms)
def test_any_bytes_are_a_header_or_a_violation(data: bytes, agreed: Terms) -> None:
    try:
        header = check(FrameHeader.unpack(data), agreed)
    except Violation:
        return
    assert header.pack() == data


@given(headers)
def test_a_header_is_read_back(header: FrameHeader) -> None:
    assert FrameHeader.unpack(header.pack()) == header


@given(headers, terms)
def test_what_is_let_through_is_bounded(header: FrameHeader, agreed: Terms) -> None:
    try:
        check(header, agreed)
    except Violation:
        return
    assert header.payload <= bound_of(header, agreed)
    if header.kind in MESSAGES or header.kind is FrameKind.EXTENTS:
        assert header.offset == 0
    elif header.kind in (FrameKind.READ, FrameKind.BYTES):
        assert header.offset + header.size <= END_OF_OFFSETS
    elif header.kind is FrameKind.MOVED:
        assert header.offset == header.size == 0
    elif header.kind not in (FrameKind.ALIVE, FrameKind.STOP, FrameKind.DURABLE):
        assert header.size > 0
        assert header.offset % agreed.block_size == 0
        assert header.offset + header.size <= agreed.size
        assert agreed.digests_of(header.offset, header.size).stop <= agreed.all_blocks * agreed.digest_size


def bound_of(header: FrameHeader, agreed: Terms) -> int:
    if header.kind in MESSAGES:
        return LARGEST_MESSAGE
    digests = agreed.blocks(agreed.segment) * agreed.digest_size
    return {
        FrameKind.EXTENTS: MOST_EXTENTS * 16,
        FrameKind.BYTES: LARGEST_READ,
        FrameKind.DIGESTS: MOST_DIGESTS * agreed.digest_size,
        FrameKind.DATA: agreed.segment + digests,
    }.get(header.kind, 0)


AGREED = Terms(size=10 * 65536 + 7, block_size=65536, digest_size=16, segment=2**20)


@pytest.mark.parametrize(
    "header",
    [
        FrameHeader(FrameKind.HELLO, Codec.NONE, 0, 0, 0),
        FrameHeader(FrameKind.HELLO, Codec.NONE, LARGEST_MESSAGE + 1, 0, 0),
        FrameHeader(FrameKind.ERROR, Codec.NONE, 10, 1, 0),
        FrameHeader(FrameKind.EXTENTS, Codec.NONE, 0, 0, 0),
        FrameHeader(FrameKind.EXTENTS, Codec.NONE, 16 * (MOST_EXTENTS + 1), 0, MOST_EXTENTS + 1),
        FrameHeader(FrameKind.EXTENTS, Codec.NONE, 32, 0, 1),
        FrameHeader(FrameKind.READ, Codec.NONE, 0, 2**63, 2**63),
        FrameHeader(FrameKind.READ, Codec.NONE, 0, 0, LARGEST_READ + 1),
        FrameHeader(FrameKind.BYTES, Codec.NONE, 5, 0, 4),
        FrameHeader(FrameKind.DIGESTS, Codec.NONE, 0, 0, 0),
        FrameHeader(FrameKind.DIGESTS, Codec.NONE, 16, 65536 * 10, 65536),
        FrameHeader(FrameKind.DIGESTS, Codec.NONE, 16, 2**64 - 65536, 65536),
        FrameHeader(FrameKind.DIGESTS, Codec.NONE, 16, 1, 65536),
        FrameHeader(FrameKind.DIGESTS, Codec.NONE, 16, 0, 65535),
        FrameHeader(FrameKind.DIGESTS, Codec.NONE, 17, 0, 65536),
        FrameHeader(FrameKind.DATA, Codec.NONE, 16 + 65535, 0, 65536),
        FrameHeader(FrameKind.DATA, Codec.ZSTD, 16 + 65536, 0, 65536),
        FrameHeader(FrameKind.DATA, Codec.ZSTD, 16, 0, 65536),
        FrameHeader(FrameKind.ZEROS, Codec.NONE, 1, 0, 65536),
        FrameHeader(FrameKind.ZEROS, Codec.ZSTD, 0, 0, 65536),
        FrameHeader(FrameKind.ALIVE, Codec.NONE, 0, 2**63, 0),
        FrameHeader(FrameKind.STOP, Codec.NONE, 1, 0, 0),
    ],
    ids=str,
)
def test_what_cannot_be_is_a_violation(header: FrameHeader) -> None:
    with pytest.raises(Violation):
        check(header, AGREED)


def test_a_frame_about_very_many_blocks_is_a_violation() -> None:
    large = frames.terms(2**50, 4096, 16)
    for kind in (FrameKind.HOLE, FrameKind.UNKNOWN, FrameKind.ZEROS, FrameKind.DIFFERS):
        check(FrameHeader(kind, Codec.NONE, 0, 0, MOST_BLOCKS * 4096), large)
        with pytest.raises(Violation):
            check(FrameHeader(kind, Codec.NONE, 0, 0, (MOST_BLOCKS + 1) * 4096), large)


def test_types_and_flags_that_do_not_exist_are_violations() -> None:
    for kind, codec, flags in ((0, 0, 0), (255, 0, 0), (FrameKind.DATA, 9, 0), (FrameKind.DATA, 0, 1)):
        with pytest.raises(Violation):
            FrameHeader.unpack(struct.pack(">BBHIQQ", kind, codec, flags, 0, 0, 0))


@pytest.mark.parametrize("kind", [kind for kind in FrameKind if 32 <= kind < 64])
def test_no_block_can_be_named_before_a_pass_is_agreed_on(kind: FrameKind) -> None:
    # The largest payload that one block may have then is a byte of digest.
    with pytest.raises(Violation):
        check(FrameHeader(kind, Codec.NONE, 65536, 0, 65536), NO_TERMS)
