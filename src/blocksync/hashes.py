"""The hash functions that blocks can be compared by."""

from dataclasses import dataclass

from blocksync._copy import xxh3_128
from blocksync.errors import Usage


@dataclass(frozen=True, slots=True)
class Hash:
    """A hash function: its name on the command line, its number in digest files, the bytes of one digest."""

    name: str
    number: int
    size: int

    def digest(self, block: bytes | memoryview) -> bytes:
        """The digest of one block, `size` bytes."""
        if self is not BLAKE3:
            return xxh3_128(block)
        from blake3 import blake3  # noqa: PLC0415

        return blake3(block).digest()


# Fast, and good against accidents: a guest that wants to can make two blocks with the same digest.
XXH3 = Hash("xxh3", 1, 16)
# For guests that are not trusted: nobody can make two blocks with the same digest.
BLAKE3 = Hash("blake3", 2, 32)

HASHES = (XXH3, BLAKE3)


def by_name(name: str) -> Hash:
    """Raises Usage."""
    for known in HASHES:
        if known.name == name:
            return known
    raise Usage(
        name, "is no hash function known here", f"one of: {', '.join(known.name for known in HASHES)}"
    )
