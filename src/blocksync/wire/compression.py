"""Compression of the data of one frame, where it pays.

Whether it does is measured as the pass goes: how fast the link takes bytes, and how fast and how far each
codec shrinks this data. What a small sample says does not shrink is sent as it is.
"""

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blocksync.wire.frames import Codec, Violation
from blocksync.wire.link import Link

# The libraries are loaded when data is first packed or unpacked: most passes find little that changed.
# ruff: noqa: PLC0415

# What this end can unpack.
CODECS = ("zstd", "lz4", "zlib")

ZSTD_LEVEL = 1
ZLIB_LEVEL = 1
# A segment is no larger; what claims a larger window is not ours.
LARGEST_WINDOW = 32 * 2**20

SAMPLE = 8192
# What shrinks by less in a sample is not worth the time.
WORTH = 0.9
# Every so many frames that shrink, a codec that was not the best gets a try.
RETRY = 16
# How much the link must have carried, or for how many seconds, before its rate is known.
FIRST_BYTES = 8 * 2**20
FIRST_SECONDS = 0.1
_WEIGHT = 0.3


@dataclass(slots=True)
class _Measured:
    """A codec on this data: seconds a byte, and bytes out a byte in. The first figures are guesses."""

    codec: Codec
    seconds: float
    ratio: float

    def learn(self, size: int, packed: int, seconds: float) -> None:
        self.seconds += _WEIGHT * (seconds / size - self.seconds)
        self.ratio += _WEIGHT * (packed / size - self.ratio)

    def cost(self, workers: int, link_seconds: float) -> float:
        """Seconds a byte, when `workers` pack at the same time and the link needs so long a byte."""
        return max(self.seconds / workers, self.ratio * link_seconds)


class Compressor:
    """Packs data for a link whose other end can unpack `codecs`; for several threads at a time."""

    def __init__(self, link: Link, codecs: Sequence[str], workers: int) -> None:
        self._codecs = _spoken(codecs)
        self._link = link
        self._workers = workers
        self._lock = threading.Lock()
        self._seen = (0, 0.0)
        self._link_seconds: float | None = None
        self._shrinking = 0

    def pack(self, data: memoryview) -> tuple[Codec, bytes | memoryview]:
        """The data as it travels: shorter than it is, or as it is."""
        best = self._best()
        if best is None or not _shrinks(data[:SAMPLE]):
            return Codec.NONE, data
        before = time.perf_counter()
        packed = _PACK[best.codec](data)
        with self._lock:
            best.learn(len(data), len(packed), time.perf_counter() - before)
        return (best.codec, packed) if len(packed) < len(data) else (Codec.NONE, data)

    def _best(self) -> _Measured | None:
        """The codec for the next frame; None when the link is faster than each of them, or not known yet."""
        with self._lock:
            self._measure_link()
            if self._link_seconds is None or not self._codecs:
                return None
            link = self._link_seconds
            ranked = sorted(self._codecs, key=lambda measured: measured.cost(self._workers, link))
            if ranked[0].cost(self._workers, link) > WORTH * link:
                return None
            self._shrinking += 1
            return ranked[-1] if self._shrinking % RETRY == 0 else ranked[0]

    def _measure_link(self) -> None:
        sent, busy = self._link.sent, self._link.busy
        bytes_since, seconds_since = sent - self._seen[0], busy - self._seen[1]
        if bytes_since < FIRST_BYTES and seconds_since < FIRST_SECONDS:
            return
        self._seen = (sent, busy)
        found = seconds_since / max(bytes_since, 1)
        known = self._link_seconds
        self._link_seconds = found if known is None else known + _WEIGHT * (found - known)


def _spoken(codecs: Sequence[str]) -> list[_Measured]:
    """What can be chosen from for an end that can unpack `codecs`: zlib, which the portable one has, is of no
    use beside the others.
    """
    guesses = (_Measured(Codec.ZSTD, 2.5e-9, 0.45), _Measured(Codec.LZ4, 1.2e-9, 0.6))
    found = [guess for guess in guesses if guess.codec.name.lower() in codecs]
    return found or [_Measured(Codec.ZLIB, 12e-9, 0.45)] * ("zlib" in codecs)


def unpack(codec: Codec, packed: memoryview, into: memoryview) -> None:
    """Fill `into` with what was packed. Raises Violation when that is not exactly as long."""
    data = _UNPACK[codec](packed, len(into))
    if data is None or len(data) != len(into):
        raise Violation(f"{len(packed)} bytes of {codec.name} that are not {len(into)} bytes of data")
    into[:] = data


def _shrinks(sample: memoryview) -> bool:
    return len(_pack_lz4(sample)) < WORTH * len(sample)


_own = threading.local()


def _pack_zstd(data: memoryview) -> bytes:
    # A compressor serves one thread at a time, and is costly to make.
    compressor = getattr(_own, "compressor", None)
    if compressor is None:
        import zstandard

        compressor = _own.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    packed: bytes = compressor.compress(data)
    return packed


def _pack_lz4(data: memoryview) -> bytes:
    import lz4.block  # type: ignore[import-untyped]

    packed: bytes = lz4.block.compress(data, store_size=False)
    return packed


def _pack_zlib(data: memoryview) -> bytes:
    return zlib.compress(data, ZLIB_LEVEL)


def _unpack_zstd(packed: memoryview, size: int) -> bytes | None:
    import zstandard

    try:
        # Memory is allocated by what the frame says of itself: that is looked at first.
        if zstandard.frame_content_size(packed) != size:
            return None
        decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        data: bytes = decompressor.decompress(packed, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        return None
    return data


def _unpack_lz4(packed: memoryview, size: int) -> bytes | None:
    import lz4.block

    try:
        data: bytes = lz4.block.decompress(packed, uncompressed_size=size)
    except lz4.block.LZ4BlockError:
        return None
    return data


def _unpack_zlib(packed: memoryview, size: int) -> bytes | None:
    decompressor = zlib.decompressobj()
    try:
        data = decompressor.decompress(packed, size + 1)
    except zlib.error:
        return None
    return data if decompressor.eof and not decompressor.unused_data else None


_PACK: dict[Codec, Callable[[memoryview], bytes]] = {
    Codec.ZSTD: _pack_zstd,
    Codec.LZ4: _pack_lz4,
    Codec.ZLIB: _pack_zlib,
}
_UNPACK: dict[Codec, Callable[[memoryview, int], bytes | None]] = {
    Codec.ZSTD: _unpack_zstd,
    Codec.LZ4: _unpack_lz4,
    Codec.ZLIB: _unpack_zlib,
}
