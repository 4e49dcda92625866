"""The near end's own thread while the others work: signals, progress, the end."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from blocksync.ends.thread_group import Crew, Stopped
from blocksync.errors import Interrupted
from blocksync.interruption import Stop
from blocksync.progress import Progress, Report
from blocksync.wire.link import Lost

TICK = 0.1


class End(Protocol):
    """Either end of a pass, at work."""

    @property
    def finished(self) -> bool: ...
    @property
    def durable(self) -> int: ...
    @property
    def looked_at(self) -> int: ...
    @property
    def source_read(self) -> int: ...
    @property
    def bytes_moved(self) -> int: ...
    @property
    def bytes_changed(self) -> int: ...
    @property
    def bytes_written(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def moment(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Whole:
    """What a pass is about: bytes to look at, how many of them are no holes, if that is known, and how many a
    second may be sent, if that is bounded.
    """

    total: int
    data: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class PassWatch:
    """What the user sees of a pass, and how it is asked to stop."""

    stop: Stop
    report: Report
    started: float
    phase: str = "copy"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def see_through(self, end: End, crew: Crew, whole: Whole) -> None:
        """Start an end and wait for it. Raises what failed."""
        end.start()
        asked = False
        with suppress(Stopped):
            while not crew.wait_for(lambda: end.finished, TICK):
                if self.stop and not asked:
                    asked = True
                    self._ask(end, crew)
                self.show(self.phase, end, whole)
        crew.finish(lambda: end.finished)

    def _ask(self, end: End, crew: Crew) -> None:
        try:
            end.stop()
        except Lost as error:
            crew.fail(error)

    def show(self, phase: str, end: End, whole: Whole) -> None:
        self.report(
            Progress(
                phase=phase,
                bytes_done=end.durable,
                bytes_looked_at=end.looked_at,
                bytes_total=whole.total,
                bytes_changed=end.bytes_changed,
                bytes_written=end.bytes_written,
                bytes_read=end.source_read,
                bytes_moved=end.bytes_moved,
                bytes_to_read=whole.data,
                limit=whole.limit,
                seconds=self.seconds,
            )
        )

    def interrupted(self, thing: object, looked_at: int, total: int) -> Interrupted:
        """What a pass that was asked to stop ends with."""
        name = self.stop.signal.name if self.stop.signal else "a request"
        return Interrupted(
            thing,
            f"stopped by {name} after {looked_at} of {total} bytes; what was written is durable",
            "run the same command again to go on",
        )
