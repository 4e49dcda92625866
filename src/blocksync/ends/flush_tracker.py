"""Which frames are applied and which are durable, when several threads apply them and one flushes."""

import heapq
import threading
from collections import deque


class Ledger:
    """Frames are numbered from 0 as they arrive. A count of frames is of the first so many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._early: list[int] = []
        self._milestones: deque[tuple[int, int]] = deque()
        self.arrived = 0
        self.applied = 0
        self.durable = 0
        self._passed = 0
        # Bytes applied since the last flush.
        self.unflushed = 0

    def arrive(self) -> int:
        """The number of a frame that arrived, or is about to be sent."""
        with self._lock:
            self.arrived += 1
            return self.arrived - 1

    def apply(self, number: int, size: int) -> None:
        """A frame was applied, which changed `size` bytes."""
        with self._lock:
            self.unflushed += size
            heapq.heappush(self._early, number)
            while self._early and self._early[0] == self.applied:
                heapq.heappop(self._early)
                self.applied += 1

    def flushing(self) -> tuple[int, int]:
        """A flush begins: the frames that it will make durable, and the bytes it is for."""
        with self._lock:
            return self.applied, self.unflushed

    def flushed(self, frames: int, size: int) -> None:
        """That flush has ended well."""
        with self._lock:
            self.unflushed -= size
            self.durable = frames
            self._pass_milestones()

    def milestone(self, mark: int) -> None:
        """The source's scan was at `mark` when the frames so far had been sent."""
        with self._lock:
            self._milestones.append((self.arrived, mark))
            self._pass_milestones()

    @property
    def passed(self) -> int:
        """The last milestone before which everything is durable."""
        return self._passed

    def _pass_milestones(self) -> None:
        while self._milestones and self._milestones[0][0] <= self.durable:
            self._passed = self._milestones.popleft()[1]
