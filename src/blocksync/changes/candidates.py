"""What may have changed: the extents, and how they became known."""

from dataclasses import dataclass

import numpy as np

from blocksync.extents import Extents


class ListLostError(Exception):
    """There is no trustworthy list of what changed; the message is the reason, for people."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Candidates of a volume of `size` bytes: sorted, disjoint, inside it. `everything` says that they are
    the whole volume for want of a list; `why` is for people.
    """

    extents: Extents
    size: int
    everything: bool
    why: str

    @classmethod
    def whole(cls, size: int, why: str) -> "Changes":
        """A full scan of a volume of `size` bytes."""
        return cls(Extents.of([(0, size)] if size else []), size, True, why)

    @classmethod
    def listed(cls, extents: Extents, size: int, why: str) -> "Changes":
        """The extents of a list, clipped to a volume of `size` bytes."""
        starts = np.clip(extents.rows[:, 0], 0, size)
        ends = np.clip(extents.rows[:, 0] + extents.rows[:, 1], 0, size)
        inside = ends > starts
        rows = np.column_stack((starts[inside], ends[inside] - starts[inside]))
        return cls(Extents(rows).coalesce(), size, False, why)

    def as_fields(self) -> dict[str, object]:
        """The same as JSON's types."""
        return {
            "size": self.size,
            "everything": self.everything,
            "why": self.why,
            "extents": self.extents.pairs(),
        }
