"""The extents of a pass as the wire's ends need them: cut into segments, walked in order, looked into.

Plain lists of (offset, length): an end on a far host starts without numpy.
"""

import bisect
from collections.abc import Iterator, Sequence

from blocksync.wire.frames import Terms, Violation

Pair = tuple[int, int]


def of_pass(terms: Terms, pairs: Sequence[Pair] | None) -> list[Pair]:
    """The extents of a pass: `pairs`, or everything. Raises Violation unless they are whole blocks inside the
    range, sorted and disjoint."""
    if pairs is None:
        return [(0, terms.size)] if terms.size else []
    last = 0
    for offset, length in pairs:
        end = offset + length
        whole = offset % terms.block_size == 0 and (end % terms.block_size == 0 or end == terms.size)
        if not (whole and last <= offset < end <= terms.size):
            raise Violation(f"an extent of {length} bytes at {offset}")
        last = end
    return list(pairs)


def pieces(extents: Sequence[Pair], most: int) -> Iterator[Pair]:
    """The extents cut at every multiple of `most` bytes."""
    for offset, length in extents:
        at, end = offset, offset + length
        while at < end:
            size = min(end, (at // most + 1) * most) - at
            yield at, size
            at += size


def contain(extents: Sequence[Pair], offset: int, size: int) -> bool:
    """Whether a range lies within one extent."""
    number = bisect.bisect_right(extents, (offset, 2**63)) - 1
    return number >= 0 and offset + size <= extents[number][0] + extents[number][1]


class Walk:
    """The extents walked from first to last, by ranges that must follow each other without a gap."""

    def __init__(self, extents: Sequence[Pair]) -> None:
        self._rest = iter(extents)
        self._at = self._end = 0
        self._next_extent()

    @property
    def over(self) -> bool:
        return self._at == self._end

    def step(self, offset: int, size: int) -> None:
        """Raises Violation unless this range is what comes next."""
        if self.over or offset != self._at or offset + size > self._end:
            raise Violation(f"digests of {size} bytes at {offset} out of order")
        self._at += size
        if self._at == self._end:
            self._next_extent()

    def _next_extent(self) -> None:
        offset, length = next(self._rest, (self._at, 0))
        self._at, self._end = offset, offset + length
