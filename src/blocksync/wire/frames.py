"""Frames: what travels between the two ends, and what a header may say before anything is allocated for it.

A frame is a header of 24 bytes, big-endian, and a payload:

    type u8, codec u8, zero u16, payload length u32, offset u64, size u64

`offset` and `size` are a range of the source in bytes for frames about blocks, and counts elsewhere. Neither
end trusts the other: `check` holds every header against the terms of the pass. docs/wire.md lists the frames.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from blocksync.errors import Failed

GREETING = b"\x00BSWIRE1"
# What the loader of the portable agent says first: it wants the program.
LOADER_GREETING = b"\x00BSLOAD1"

HEADER = struct.Struct(">BBHIQQ")

LARGEST_MESSAGE = 64 * 1024
LARGEST_READ = 16 * 2**20
SEGMENT = 2**21
MOST_EXTENTS = 4096
MOST_DIGESTS = 4096
# Of one frame that names blocks and carries nothing: what the other end does for it stays small.
MOST_BLOCKS = 65536
# The largest offset that a file may have (off_t).
END_OF_OFFSETS = 2**63 - 1

_PAIR = 16


class FrameKind(IntEnum):
    """Types of frames."""

    # Control: a message in JSON.
    HELLO = 1
    JOB = 2
    DEVICE = 3
    START = 4
    READY = 5
    TOTALS = 6
    DONE = 7
    ERROR = 8
    OFFER = 9
    ANSWER = 10
    CONNECTED = 11
    ARRIVED = 12
    # Before the streams.
    EXTENTS = 16
    READ = 17
    BYTES = 18
    MOVED = 19
    # Target to source: what the target holds, in order.
    DIGESTS = 32
    UNKNOWN = 33
    HOLE = 34
    KNOWN = 35
    # Source to target: what differs, in any order.
    DATA = 48
    ZEROS = 49
    DIFFERS = 50
    # Either way, at any time.
    ALIVE = 64
    STOP = 65
    DURABLE = 66


MESSAGES = frozenset(
    {
        FrameKind.HELLO,
        FrameKind.JOB,
        FrameKind.DEVICE,
        FrameKind.START,
        FrameKind.READY,
        FrameKind.TOTALS,
        FrameKind.DONE,
        FrameKind.ERROR,
        FrameKind.OFFER,
        FrameKind.ANSWER,
        FrameKind.CONNECTED,
        FrameKind.ARRIVED,
    }
)


class Codec(IntEnum):
    """How the data of a frame is compressed."""

    NONE = 0
    ZSTD = 1
    LZ4 = 2
    ZLIB = 3


class Violation(Failed):
    """The other end said what the protocol does not allow."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            "the other end", f"breaks the protocol: {cause}", "install the same release on both hosts"
        )


class FrameHeader(NamedTuple):
    """A frame's header. `payload` is its length in bytes as it travels."""

    kind: FrameKind
    codec: Codec
    payload: int
    offset: int
    size: int

    def pack(self) -> bytes:
        return HEADER.pack(self.kind, self.codec, 0, self.payload, self.offset, self.size)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> "FrameHeader":
        """Raises Violation for a type or codec that does not exist."""
        kind, codec, zero, payload, offset, size = HEADER.unpack(data)
        if kind not in _KINDS or codec not in _CODECS or zero:
            raise Violation(f"a frame of type {kind}, codec {codec} and flags {zero}")
        return cls(_KINDS[kind], _CODECS[codec], payload, offset, size)


_KINDS = {int(kind): kind for kind in FrameKind}
_CODECS = {int(codec): codec for codec in Codec}


@dataclass(frozen=True, slots=True)
class Terms:
    """What both ends agreed on for a pass, in bytes: the range [0, size) of the source, its blocks and
    digests, and the most data that one frame carries.
    """

    size: int
    block_size: int
    digest_size: int
    segment: int

    def blocks(self, size: int) -> int:
        """How many blocks `size` bytes are, the last of which may be short."""
        return -(-size // self.block_size)

    @property
    def all_blocks(self) -> int:
        return self.blocks(self.size)

    def digests_of(self, offset: int, size: int) -> slice:
        """Where the digests of a range of blocks are in a table of one digest a block."""
        first = offset // self.block_size
        return slice(first * self.digest_size, (first + self.blocks(size)) * self.digest_size)


def terms(size: int, block_size: int, digest_size: int) -> Terms:
    """The terms of a pass over `size` bytes."""
    return Terms(size, block_size, digest_size, max(SEGMENT, block_size))


# Before the streams begin, a range is one of the device's own bytes.
NO_TERMS = Terms(size=END_OF_OFFSETS, block_size=1, digest_size=1, segment=0)


def check(header: FrameHeader, terms: Terms) -> FrameHeader:
    """The header, if its lengths, counts and range are possible under these terms. Raises Violation."""
    if header.kind in MESSAGES:
        _check_message(header)
    else:
        _CHECKS[header.kind](header, terms)
    if header.codec is not Codec.NONE and header.kind is not FrameKind.DATA:
        raise _impossible(header)
    return header


def _check_message(header: FrameHeader) -> None:
    if header.offset or header.size or not 2 <= header.payload <= LARGEST_MESSAGE:
        raise _impossible(header)


def _check_extents(header: FrameHeader, terms: Terms) -> None:
    if header.offset or not 1 <= header.size <= MOST_EXTENTS or header.payload != header.size * _PAIR:
        raise _impossible(header)


def _check_read(header: FrameHeader, terms: Terms) -> None:
    expected = header.size if header.kind is FrameKind.BYTES else 0
    if not 1 <= header.size <= LARGEST_READ or header.payload != expected:
        raise _impossible(header)
    if header.offset > END_OF_OFFSETS - header.size:
        raise _impossible(header)


def _check_range(header: FrameHeader, terms: Terms) -> None:
    """A range of whole blocks inside the pass; only the last one may be short."""
    end = header.offset + header.size
    if header.size == 0 or end > terms.size or header.offset % terms.block_size:
        raise _impossible(header)
    if end % terms.block_size and end != terms.size:
        raise _impossible(header)


def _check_digests(header: FrameHeader, terms: Terms) -> None:
    _check_range(header, terms)
    blocks = terms.blocks(header.size)
    if blocks > MOST_DIGESTS or header.payload != blocks * terms.digest_size:
        raise _impossible(header)


def _check_empty_range(header: FrameHeader, terms: Terms) -> None:
    _check_range(header, terms)
    if header.payload or terms.blocks(header.size) > MOST_BLOCKS:
        raise _impossible(header)


def _check_data(header: FrameHeader, terms: Terms) -> None:
    _check_range(header, terms)
    whole = terms.blocks(header.size) * terms.digest_size + header.size
    if header.size > terms.segment:
        raise _impossible(header)
    if header.codec is Codec.NONE:
        fits = header.payload == whole
    else:
        fits = whole - header.size < header.payload < whole
    if not fits:
        raise _impossible(header)


def _check_counts(header: FrameHeader, terms: Terms) -> None:
    if header.payload or max(header.offset, header.size) > END_OF_OFFSETS:
        raise _impossible(header)


def _check_bare(header: FrameHeader, terms: Terms) -> None:
    if header.payload or header.offset or header.size:
        raise _impossible(header)


def _impossible(header: FrameHeader) -> Violation:
    return Violation(
        f"a frame {header.kind.name} of {header.payload} bytes, codec {header.codec.name}, "
        f"about {header.size} at {header.offset}"
    )


_CHECKS: dict[FrameKind, Callable[[FrameHeader, Terms], None]] = {
    FrameKind.EXTENTS: _check_extents,
    FrameKind.READ: _check_read,
    FrameKind.BYTES: _check_read,
    FrameKind.DIGESTS: _check_digests,
    FrameKind.UNKNOWN: _check_empty_range,
    FrameKind.HOLE: _check_empty_range,
    FrameKind.KNOWN: _check_empty_range,
    FrameKind.DATA: _check_data,
    FrameKind.ZEROS: _check_empty_range,
    FrameKind.DIFFERS: _check_empty_range,
    FrameKind.MOVED: _check_bare,
    FrameKind.ALIVE: _check_counts,
    FrameKind.STOP: _check_counts,
    FrameKind.DURABLE: _check_counts,
}
