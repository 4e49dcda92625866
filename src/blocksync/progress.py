"""How far a pass is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from blocksync.sizes import format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a pass, in bytes. Of `bytes_total`, `bytes_looked_at` are compared, and written where they
    differed; `bytes_done` of them are durable as well.

    `bytes_read` is what was read of the source: what was looked at, without the holes that its file system
    knows. `bytes_to_read` is how much there is to read, None where nobody knows. `bytes_moved` is what counts
    against `limit`, in bytes a second: what was read and written here, or sent between hosts.

    `phase` is `copy`, `verify`, `watch`, `look` or `flush`; `seconds` are since the start of the pass.
    """

    phase: str
    bytes_done: int
    bytes_looked_at: int
    bytes_total: int
    bytes_changed: int
    bytes_written: int
    bytes_read: int
    bytes_moved: int
    seconds: float
    bytes_to_read: int | None = None
    limit: int | None = None

    @property
    def bytes_left(self) -> int:
        """What may still have to be read."""
        unseen = self.bytes_total - self.bytes_looked_at
        if self.bytes_to_read is None or self.bytes_to_read <= self.bytes_read:
            return unseen
        return min(unseen, self.bytes_to_read - self.bytes_read)

    @property
    def is_over(self) -> bool:
        """Whether all was looked at and is durable."""
        return self.bytes_looked_at >= self.bytes_total and self.bytes_done >= self.bytes_total


Report = Callable[[Progress], None]


class Tell(Protocol):
    """Is told what a step is at, in a few words, and how many seconds it may take if that is bounded."""

    def __call__(self, text: str, of: float | None = None) -> None: ...


def untold(text: str, of: float | None = None) -> None:
    """Tells nobody."""
    del text, of


def describe(progress: Progress, rate: float, eta: float | None) -> str:
    """One line of text, what matters most first: a narrow terminal shows no more than that."""
    to_go = "" if eta is None else f", {duration(eta)} to go"
    return (
        f"{progress.phase} {format_size(progress.bytes_looked_at)} of {format_size(progress.bytes_total)} "
        f"({format_size(progress.bytes_done)} durable), "
        f"{format_size(rate)}/s{to_go}, {format_size(progress.bytes_changed)} changed"
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: `12 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
