"""How far a pass is, and the three ways to show it: a live bar, plain lines, JSON lines."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from blocksync.sizes import format_size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LOG_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a pass. `bytes_done` counts only what is durable: looked at, and written and flushed where
    it differed.

    `phase` is `copy`, `verify` or `flush`; `seconds` are since the start of the pass.
    """

    phase: str
    bytes_done: int
    bytes_total: int
    bytes_changed: int
    bytes_written: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second so far."""
        return self.bytes_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to go at this rate; None before anything is known."""
        return (self.bytes_total - self.bytes_done) / self.rate if self.rate else None


Report = Callable[[Progress], None]


class Display(Protocol):
    """Shows the progress of one or several named tasks while it is entered."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def task(self, name: str) -> Report:
        """A callable that takes this task's progress."""
        ...


def display(
    stream: TextIO | None = None, *, json_lines: bool = False, color: bool = True, quiet: bool = False
) -> Display:
    """The display that fits `stream` (standard error by default): JSON lines if asked for, a live bar on a
    terminal, plain lines elsewhere; nothing if `quiet`.
    """
    if quiet:
        return Silent()
    stream = sys.stderr if stream is None else stream
    if json_lines:
        return JsonLines(stream)
    if stream.isatty():
        return Live(stream, color=color)
    return PlainLines(stream)


class _Entered:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Silent(_Entered):
    """Shows nothing."""

    def task(self, name: str) -> Report:
        return lambda progress: None


class JsonLines(_Entered):
    """One JSON object a line, with the format's version, the task and every field of Progress: one a second,
    and one at the end.
    """

    INTERVAL = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def task(self, name: str) -> Report:
        from json import dumps  # noqa: PLC0415

        due = 0.0

        def report(progress: Progress) -> None:
            nonlocal due
            if progress.seconds < due and progress.bytes_done < progress.bytes_total:
                return
            due = progress.seconds + self.INTERVAL
            line = {"format": LOG_FORMAT, "time": round(time.time(), 3), "task": name, **asdict(progress)}
            print(dumps(line), file=self._stream, flush=True)

        return report


class PlainLines(_Entered):
    """A line every few seconds, for logs and pipes."""

    INTERVAL = 5.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def task(self, name: str) -> Report:
        last = 0.0

        def report(progress: Progress) -> None:
            nonlocal last
            if progress.seconds - last >= self.INTERVAL:
                last = progress.seconds
                print(f"{name}: {describe(progress)}", file=self._stream, flush=True)

        return report


class Live(_Entered):
    """A bar a task, redrawn in place. Nothing is drawn for what is over in half a second."""

    DELAY = 0.5

    def __init__(self, stream: TextIO, *, color: bool = True) -> None:
        self._stream = stream
        self._color = color
        self._bars: RichProgress | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def task(self, name: str) -> Report:
        bar: TaskID | None = None

        def report(progress: Progress) -> None:
            nonlocal bar
            if bar is None and progress.seconds < self.DELAY:
                return
            bars = self._started()
            if bar is None:
                bar = bars.add_task(name, total=progress.bytes_total, phase="", changed="")
            changed = f"{format_size(progress.bytes_changed)} changed"
            bars.update(bar, completed=progress.bytes_done, phase=progress.phase, changed=changed)

        return report

    def _started(self) -> "RichProgress":
        if self._bars is None:
            # Imported late: most passes over a volume that did not change are over before this is needed.
            from rich import progress as rich  # noqa: PLC0415
            from rich.console import Console  # noqa: PLC0415

            self._bars = rich.Progress(
                rich.TextColumn("{task.description}"),
                rich.TextColumn("{task.fields[phase]}"),
                rich.BarColumn(),
                rich.DownloadColumn(binary_units=True),
                rich.TransferSpeedColumn(),
                rich.TextColumn("{task.fields[changed]}"),
                rich.TimeRemainingColumn(),
                console=Console(file=self._stream, no_color=not self._color),
            )
            self._bars.start()
        return self._bars


def describe(progress: Progress) -> str:
    """One line of text: phase, done of total, rate, what changed, time to go."""
    eta = "" if progress.eta is None else f", {progress.eta:.0f} s to go"
    return (
        f"{progress.phase} {format_size(progress.bytes_done)} of {format_size(progress.bytes_total)}, "
        f"{format_size(progress.rate)}/s, {format_size(progress.bytes_changed)} changed{eta}"
    )
