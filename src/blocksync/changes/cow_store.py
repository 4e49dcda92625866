"""The persistent exception store of dm-snapshot: which chunks of the origin were written since.

Little-endian, in chunks. Chunk 0 is the header: magic, valid, version, chunk size in sectors of 512 bytes,
each u32. Then areas: one chunk of metadata, an array of {old chunk u64, new chunk u64}, followed by as many
chunks of data as it has entries. An entry whose new chunk is 0 ends the list (Linux,
drivers/md/dm-snap-persistent.c).

An area is zeroed before the one in front of it is written full, so a store that grows while it is read is
read right as long as its areas are read in order. Nothing in a store is trusted: whatever the kernel would
not have written means that the list is lost.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blocksync.changes.candidates import ListLostError
from blocksync.extents import Extents

MAGIC = 0x70416E53
VERSION = 1
SECTOR = 512
ENTRY = 16
HEADER_BYTES = 4096
"""What is read of chunk 0: a unit that every device reads directly."""

Read = Callable[[Sequence[int], int], Sequence[bytes]]
"""Reads that many bytes at each of the offsets, in their order and past any cache. Offsets are multiples of
the length."""

_LARGEST_CHUNK = 16 * 2**20
# What is kept of a list is a bit for each chunk of the origin, and of its store: 256 MiB are a volume of 128
# TiB in our own snapshots' chunks. A list of more entries, 1 TiB of these, saves no time.
_MOST_CHUNKS = 2**31
_MOST_ENTRIES = 2**24
_PIECES = 256
_BATCH_BYTES = 16 * 2**20

Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Shape:
    """A store: its chunk's size in bytes, and how many chunks it and its origin have."""

    chunk_size: int
    chunks: int
    origin_chunks: int

    @property
    def entries(self) -> int:
        """Entries in an area."""
        return self.chunk_size // ENTRY

    def areas(self) -> range:
        """The offsets of all areas that fit and that a list of this origin can fill, in bytes."""
        stride = (self.entries + 1) * self.chunk_size
        count = self.origin_chunks // self.entries + 1
        end = min(self.chunks * self.chunk_size, self.chunk_size + count * stride)
        return range(self.chunk_size, end, stride)


class _Chunks:
    """Which of so many chunks were named."""

    def __init__(self, count: int) -> None:
        self.count = 0
        self.bits = np.zeros(-(-count // 8), dtype=np.uint8)

    def add(self, numbers: Numbers) -> None:
        """Raises ListLostError when one was named before."""
        places, bits = numbers >> np.uint64(3), np.uint8(1) << (numbers & np.uint64(7)).astype(np.uint8)
        if len(np.unique(numbers)) != len(numbers) or (self.bits[places] & bits).any():
            raise ListLostError("the snapshot's list names a chunk twice")
        np.bitwise_or.at(self.bits, places, bits)
        self.count += len(numbers)


def changed(read: Read, store_size: int, origin_size: int) -> Extents:
    """The chunks of an origin of `origin_size` bytes that a store of `store_size` bytes lists.

    Raises ListLostError with the reason.
    """
    shape = _shape(read([0], HEADER_BYTES), store_size, origin_size)
    old, new = _Chunks(shape.origin_chunks), _Chunks(shape.chunks)
    for area in _areas(read, shape):
        entries = _entries(area)
        _check(entries, shape)
        old.add(entries[:, 0])
        new.add(entries[:, 1])
        if old.count > _MOST_ENTRIES:
            raise ListLostError("the snapshot's list is longer than looking at everything takes")
    return Extents.of_blocks(old.bits.data, shape.chunk_size, origin_size)


def _shape(pieces: Sequence[bytes], store_size: int, origin_size: int) -> _Shape:
    if len(pieces) != 1 or len(pieces[0]) != HEADER_BYTES:
        raise ListLostError("the snapshot's store has no readable header")
    magic, valid, version, sectors = struct.unpack_from("<IIII", pieces[0])
    if magic != MAGIC:
        raise ListLostError("the snapshot's store has no header")
    if valid != 1:
        raise ListLostError("the snapshot is marked invalid")
    if version != VERSION:
        raise ListLostError(f"the snapshot's store has the unknown version {version}")
    chunk_size = sectors * SECTOR
    if not sectors or sectors & (sectors - 1) or chunk_size > _LARGEST_CHUNK:
        raise ListLostError(f"the snapshot's store has an impossible chunk size of {sectors} sectors")
    origin_chunks = -(-origin_size // chunk_size)
    if origin_chunks > _MOST_CHUNKS:
        raise ListLostError(f"the snapshot's list would be of {origin_chunks} chunks")
    # The header, every chunk of the origin, and their metadata: the kernel uses no more of a store.
    most = 1 + origin_chunks + origin_chunks // (chunk_size // ENTRY) + 1
    return _Shape(chunk_size, min(store_size // chunk_size, most), origin_chunks)


def _areas(read: Read, shape: _Shape) -> Iterator[Numbers]:
    """The metadata of one area after the other, up to the one that is not full."""
    offsets = shape.areas()
    most = max(1, min(_PIECES, _BATCH_BYTES // shape.chunk_size))
    at, batch = 0, 1
    while at < len(offsets):
        wanted = offsets[at : at + batch]
        pieces = read(wanted, shape.chunk_size)
        if len(pieces) != len(wanted) or any(len(piece) != shape.chunk_size for piece in pieces):
            raise ListLostError("the snapshot's store cannot be read to its end")
        for piece in pieces:
            area = np.frombuffer(piece, dtype="<u8").astype(np.uint64).reshape(-1, 2)
            yield area
            if not area[-1, 1]:
                return
        at += len(wanted)
        batch = min(2 * batch, most)


def _entries(area: Numbers) -> Numbers:
    """The entries of an area, up to the end of the list."""
    ends = np.flatnonzero(area[:, 1] == 0)
    if not len(ends):
        return area
    if area[ends[0] :].any():
        raise ListLostError("the snapshot's list goes on after its end")
    return area[: ends[0]]


def _check(entries: Numbers, shape: _Shape) -> None:
    old, new = entries[:, 0], entries[:, 1]
    if (old >= shape.origin_chunks).any():
        raise ListLostError("the snapshot's list names chunks past the end of its origin")
    if (new >= shape.chunks).any() or ((new - 1) % (shape.entries + 1) == 0).any():
        raise ListLostError("the snapshot's list names chunks that hold no data")
