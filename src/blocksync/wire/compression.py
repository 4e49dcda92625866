"""Compression of the data of one frame."""

from collections.abc import Sequence

from blocksync.wire.frames import Codec

CODECS: tuple[str, ...] = ()


class Packer:
    """Packs data for the wire with codecs that the other end knows."""

    def __init__(self, codecs: Sequence[str]) -> None:
        self._codecs = codecs

    def pack(self, data: memoryview) -> tuple[Codec, bytes | memoryview]:
        """The data as it travels, never longer than it is."""
        return Codec.NONE, data


def unpack(codec: Codec, packed: memoryview, into: memoryview) -> None:
    """Fill `into` with what was packed. Raises Violation when it is not exactly that long."""
    into[:] = packed
