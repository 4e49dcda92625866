"""How fast a pass is, and when it will be over: from what it did lately, not from its whole past.

Holes cost nothing, so time is told by the bytes that are read. What a byte costs changes along a volume
(much of it unchanged, then a region that was rewritten), and so does the speed of a link: only the recent
past says what the next minutes are like.
"""

from collections import deque
from collections.abc import Callable

from blocksync.progress import Progress

WINDOW = 30.0
"""The recent past, in seconds."""

_APART = 0.5

Count = Callable[[Progress], int]


class Pace:
    """Is told the moments of one pass, in order."""

    def __init__(self) -> None:
        self._moments: deque[Progress] = deque()

    def note(self, moment: Progress) -> None:
        """One more moment."""
        moments = self._moments
        if moments and moment.phase != moments[-1].phase and moment.phase != "flush":
            # Another kind of work: copying says nothing of how fast it is compared.
            moments.clear()
        # The first one of each half second stays; the last one is always the newest.
        if len(moments) > 1 and moments[-1].seconds - moments[-2].seconds < _APART:
            moments.pop()
        moments.append(moment)
        while len(moments) > 2 and moment.seconds - moments[1].seconds >= WINDOW:
            moments.popleft()

    @property
    def rate(self) -> float:
        """Bytes a second that were looked at in the recent past, holes included."""
        return self._per_second(lambda moment: moment.bytes_looked_at)

    @property
    def eta(self) -> float | None:
        """Seconds to go; None before anything is known. Never below zero."""
        if not self._moments:
            return None
        now = self._moments[-1]
        if now.bytes_looked_at >= now.bytes_total:
            return 0.0
        read = self._per_second(lambda moment: moment.bytes_read)
        if read > 0:
            return max(now.bytes_left / read, self._at_the_limit(now, read))
        # Nothing but holes so far, or in the recent past.
        rate = self.rate
        return (now.bytes_total - now.bytes_looked_at) / rate if rate > 0 else None

    def _at_the_limit(self, now: Progress, read: float) -> float:
        """Seconds that what is left takes at the limit, if as much of it is moved as lately: a burst at the
        start, into the buffers on the way, is faster than the limit and tells nothing.
        """
        if now.limit is None:
            return 0.0
        moved = self._per_second(lambda moment: moment.bytes_moved)
        return now.bytes_left * (moved / read) / now.limit

    def _per_second(self, count: Count) -> float:
        if len(self._moments) < 2:
            return 0.0
        first, last = self._moments[0], self._moments[-1]
        seconds = last.seconds - first.seconds
        return max(0.0, (count(last) - count(first)) / seconds) if seconds > 0 else 0.0
