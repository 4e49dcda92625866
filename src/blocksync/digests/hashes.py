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
        if self is XXH3:
            return xxh3_128(block)
        if self is BLAKE3:
            from blake3 import blake3  # noqa: PLC0415

            return blake3(block).digest()
        import hashlib  # noqa: PLC0415

        if self is BLAKE2B:
            return hashlib.blake2b(block, digest_size=self.size).digest()
        return hashlib.new(self.name, block).digest()


# Fast, and good against accidents: a guest that wants to can make two blocks with the same digest.
XXH3 = Hash("xxh3", 1, 16)
# For guests that are not trusted: nobody can make two blocks with the same digest.
BLAKE3 = Hash("blake3", 2, 32)

# What the standard library of Python has, for far ends where nothing is installed. SHA-1 and MD5 are as good
# as XXH3: against accidents.
BLAKE2B = Hash("blake2b", 3, 32)
SHA256 = Hash("sha256", 4, 32)
SHA1 = Hash("sha1", 5, 20)
MD5 = Hash("md5", 6, 16)

CHOICES = (XXH3, BLAKE3)
HASHES = (*CHOICES, BLAKE2B, SHA256, SHA1, MD5)


def by_name(name: str) -> Hash:
    """Raises Usage."""
    for known in CHOICES:
        if known.name == name:
            return known
    raise Usage(
        name, "is no hash function known here", f"one of: {', '.join(known.name for known in CHOICES)}"
    )
