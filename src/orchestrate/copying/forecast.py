"""What the next pass would take, from what the passes before it did.

A pass costs a fixed time, and time for each byte that it has to look at. The guest changes so many bytes a
second. So the last pass takes `fixed + dirty rate * seconds since the moment / transfer rate`; and passes
that follow each other at once become no shorter than the one during which the guest changes just what it
moves: `fixed / (1 - dirty rate / transfer rate)`, and never end where the guest changes more than they move.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from blocksync.sizes import format_size
from orchestrate.job.folder import PassRecord

RECENT = 6
"""How many of the latest passes count: a guest's night is not its day."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Rates in bytes a second, `fixed` in seconds. `dirty_rate` counts bytes that a pass has to look at again
    (whole chunks where there are snapshots).
    """

    dirty_rate: float
    transfer_rate: float
    fixed: float

    def seconds(self, gap: float) -> float:
        """What a pass would take, `gap` seconds after the moment of the one before it."""
        return self.fixed + self.dirty_rate * gap / self.transfer_rate

    @property
    def shortest(self) -> float | None:
        """What passes come down to, in seconds; None when the guest changes more than they move."""
        load = self.dirty_rate / self.transfer_rate
        return self.fixed / (1 - load) if load < 1 else None

    def converges(self, limit: float) -> bool:
        """Whether passes can come down to `limit` seconds."""
        return self.shortest is not None and self.shortest <= limit

    def why_not(self, limit: float) -> str:
        """Why passes do not come down to `limit` seconds; empty when they do."""
        dirty, moved = f"{format_size(self.dirty_rate)}/s", f"{format_size(self.transfer_rate)}/s"
        if self.shortest is None:
            return f"the guest changes {dirty}, passes move {moved}"
        if self.shortest <= limit:
            return ""
        return f"at {dirty} changed and {moved} moved, no pass becomes shorter than {self.shortest:.1f} s"


def of(records: Sequence[PassRecord]) -> Forecast | None:
    """The forecast from the latest passes, oldest first; None before a second pass tells how much changes."""
    recent = records[-RECENT:]
    if len(recent) < 2:
        return None
    listed = recent[-1].listed
    dirty = _dirty_rate(recent, listed=listed)
    if dirty is None:
        return None
    # A pass that was held back shows how fast it was allowed to be; where there is no other, at least that.
    timed = [each for each in records if each.limit is None] or records
    points = [(_work(each, listed=listed), each.seconds) for each in _with_the_largest(timed, listed=listed)]
    rate = _transfer_rate(points)
    fixed = max(0.0, median(seconds - work / rate for work, seconds in points[-(len(recent) - 1) :]))
    return Forecast(dirty, rate, fixed)


def _work(record: PassRecord, *, listed: bool) -> int:
    """The bytes that decide how long a pass takes: without a list every pass reads everything."""
    return record.looked_at if listed else record.changed


def _with_the_largest(records: Sequence[PassRecord], *, listed: bool) -> list[PassRecord]:
    """The latest passes, after the one that moved most: it shows the rate, and they the fixed time."""
    recent = list(records[-RECENT:])
    largest = max(records, key=lambda each: _work(each, listed=listed))
    return recent if any(each is largest for each in recent) else [largest, *recent]


def _dirty_rate(records: Sequence[PassRecord], *, listed: bool) -> float | None:
    """The worst of the last two intervals between moments."""
    rates = [
        _work(later, listed=listed) / (later.at - earlier.at)
        for earlier, later in pairwise(records)
        if later.at > earlier.at and later.listed == listed
    ]
    return max(rates[-2:]) if rates else None


def _transfer_rate(points: Sequence[tuple[int, float]]) -> float:
    """Bytes a second by the slope from the smallest pass to the largest; above zero."""
    small, large = min(points), max(points)
    work, seconds = large[0] - small[0], large[1] - small[1]
    if work > 0 and seconds > 0:
        return work / seconds
    return max(large[0], 1) / max(large[1], 1e-3)
