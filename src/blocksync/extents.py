"""Extents: sorted or unsorted ranges of bytes, as one numpy array, and the text file that lists them."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blocksync import own_files
from blocksync.errors import Usage

HEADER = "# blocksync extents 1: offset and length in bytes, one extent a line"

_PIECE = 2**20
_TEXT = bytes((*b"\t\n\r\v\f", *range(0x20, 0x7F)))


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """Ranges of bytes. `rows` is an int64 array of shape (n, 2): offset and length, both in bytes, length
    above zero.
    """

    rows: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != 2 or self.rows.dtype != np.int64:
            raise ValueError("extents are an int64 array of shape (n, 2)")

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> "Extents":
        """The extents of (offset, length) pairs."""
        return cls(np.array(list(pairs), dtype=np.int64).reshape(-1, 2))

    @classmethod
    def of_blocks(cls, bits: bytes | bytearray | memoryview, block_size: int, size: int) -> "Extents":
        """Runs of neighbouring set bits (bit i of byte i//8 is block i) of a range of `size` bytes."""
        packed = np.frombuffer(bits, dtype=np.uint8)[: -(-size // block_size // 8)]
        runs = []
        # Piece by piece: a bit takes a byte once it is unpacked.
        for at in range(0, len(packed), _PIECE):
            flags = np.unpackbits(packed[at : at + _PIECE], bitorder="little")
            edges = np.flatnonzero(np.diff(flags.view(np.int8), prepend=0, append=0)).reshape(-1, 2)
            runs.append(edges.astype(np.int64) + at * 8)
        if not runs:
            return cls.of(())
        ends = np.minimum(np.concatenate(runs) * block_size, size)
        return cls(np.column_stack((ends[:, 0], ends[:, 1] - ends[:, 0]))).coalesce()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extents) and np.array_equal(self.rows, other.rows)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.rows)

    def __bool__(self) -> bool:
        return len(self.rows) > 0

    def pairs(self) -> list[tuple[int, int]]:
        """The same as (offset, length) pairs of Python integers."""
        return [(int(offset), int(length)) for offset, length in self.rows]

    @property
    def total(self) -> int:
        """Bytes in all extents together (overlaps count twice: coalesce first)."""
        return int(self.rows[:, 1].sum())

    def coalesce(self, gap: int = 0) -> "Extents":
        """Sorted and disjoint: extents that overlap, touch or lie at most `gap` bytes apart become one."""
        if not len(self.rows):
            return self
        rows = self.rows[np.argsort(self.rows[:, 0], kind="stable")]
        ends = np.maximum.accumulate(rows[:, 0] + rows[:, 1])
        first = np.concatenate(([True], rows[1:, 0] > ends[:-1] + gap))
        last = np.concatenate((first[1:], [True]))
        starts = rows[first, 0]
        return Extents(np.column_stack((starts, ends[last] - starts)))

    def aligned(self, block_size: int, size: int) -> "Extents":
        """Widened to whole blocks of a range of `size` bytes, clipped to it, coalesced."""
        starts = np.clip(self.rows[:, 0] // block_size * block_size, 0, size)
        # Clipped before rounding up as well: the largest offsets leave no room for that.
        ends = np.clip(self.rows[:, 0] + self.rows[:, 1], 0, size)
        ends = np.clip(-(-ends // block_size) * block_size, 0, size)
        keep = ends > starts
        return Extents(np.column_stack((starts[keep], ends[keep] - starts[keep]))).coalesce()

    def to_text(self) -> str:
        """The extents file: a comment that names the format, then `OFFSET LENGTH` lines in bytes."""
        return "\n".join((HEADER, *(f"{offset} {length}" for offset, length in self.rows))) + "\n"

    @classmethod
    def from_text(cls, text: str, name: str = "extents") -> "Extents":
        """Read what `to_text` writes; `#` starts a comment. Raises Usage naming the line."""
        pairs = []
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.partition("#")[0].split()
            if not fields:
                continue
            if len(fields) != 2 or not all(map(_is_number, fields)):
                raise Usage(
                    f"{name}:{number}", "is no extent", "write OFFSET LENGTH in bytes, as two whole numbers"
                )
            offset, length = int(fields[0]), int(fields[1])
            if length == 0 or offset + length >= 2**63:
                raise Usage(f"{name}:{number}", "is an empty extent or one past the largest offset")
            pairs.append((offset, length))
        return cls.of(pairs)

    @classmethod
    def read(cls, path: Path) -> "Extents":
        """Read an extents file. Raises Usage."""
        try:
            with own_files.opened(path.resolve(), os.O_RDONLY, "a list of extents") as fd:
                text = b"".join(_lines_of_text(fd))
            return cls.from_text(text.decode("ascii"), str(path))
        except OSError as error:
            raise Usage(path, error.strerror or str(error), "name a readable extents file") from error
        except UnicodeDecodeError as error:
            raise Usage(path, "is no text file of extents", "write OFFSET LENGTH lines") from error


def _lines_of_text(fd: int) -> Iterator[bytes]:
    """What is in a file, piece by piece: an image that was named by a slip may be larger than any memory."""
    while piece := os.read(fd, _PIECE):
        if piece.translate(None, _TEXT):
            raise UnicodeDecodeError("ascii", piece, 0, 1, "no text")
        yield piece


def _is_number(field: str) -> bool:
    # No offset has more digits, and Python converts no number of thousands of them.
    return field.isascii() and field.isdigit() and len(field) <= len(str(2**63))
