"""Which extents of a volume may have changed since a moment in the past.

What is listed are candidates: the engine hashes inside them and writes the blocks that differ. What is not
listed did not change. Where that cannot be promised, everything is listed, and why.
"""

from blocksync.changes.candidates import Changes

__all__ = ["Changes"]
