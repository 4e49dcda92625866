"""Writes the exception store of a dm-snapshot as its format says: header, and areas of a metadata chunk
followed by its data chunks.
"""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path


def store(old_chunks: Iterable[int], *, chunk_size: int = 4096, chunks: int = 4096) -> bytearray:
    """A store of `chunks` chunks that lists these chunks of its origin, filled with rubbish where the kernel
    writes nothing.
    """
    image = bytearray(b"\xa5") * (chunks * chunk_size)
    image[:chunk_size] = struct.pack("<4I", 0x70416E53, 1, 1, chunk_size // 512).ljust(chunk_size, b"\0")
    per_area = chunk_size // 16
    image[chunk_size : 2 * chunk_size] = bytes(chunk_size)
    for index, old in enumerate(old_chunks):
        area, place = divmod(index, per_area)
        metadata = 1 + area * (per_area + 1)
        if place == per_area - 1:
            following = (metadata + per_area + 1) * chunk_size
            image[following : following + chunk_size] = bytes(chunk_size)
        struct.pack_into("<QQ", image, metadata * chunk_size + place * 16, old, metadata + 1 + place)
    return image[: chunks * chunk_size]


class FileReader:
    """Reads pieces of a store that lies in a file, and keeps count of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pieces = 0

    def __call__(self, offsets: Sequence[int], length: int) -> list[bytes]:
        self.pieces += len(offsets)
        with self.path.open("rb") as file:
            return [self._piece(file, offset, length) for offset in offsets]

    @staticmethod
    def _piece(file, offset: int, length: int) -> bytes:
        assert offset % length == 0
        file.seek(offset)
        return file.read(length)
