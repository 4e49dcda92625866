"""A device looked through for what is not as expected."""

from blocksync.devices.device import Opened
from blocksync.ends.reading import Desk, Hasher, SegmentReader
from blocksync.wire.frames import Terms


class Scanner:
    """Finds what differs from `expected`, one digest a block of the device; zeros are never as expected."""

    def __init__(self, opened: Opened, terms: Terms, hasher: Hasher, expected: memoryview) -> None:
        self._terms = terms
        self._expected = expected
        self._reader = SegmentReader(opened, terms)
        self._hasher = hasher
        self._natively = hasher.is_native and terms.block_size % opened.align == 0

    @property
    def bytes_read(self) -> int:
        return self._reader.bytes_read

    def next(self, desk: Desk, offset: int, end: int) -> tuple[int, memoryview]:
        """Look from `offset` on for blocks that may differ, up to `end`.

        Returns how far nothing differs, and what comes there: at most a segment, whose digests are on the
        desk, or nothing. Raises Failed.
        """
        if self._natively and (until := self._reader.data_until(offset, end)) > offset:
            offset, size = self._reader.find_changed(desk, offset, until, self._expected)
            if size >= 0:
                return offset, desk.data[:size]
        data = self._reader.read(desk, offset, min(self._terms.segment, end - offset))
        self._hasher.hash(data, desk.digests)
        return offset, data
