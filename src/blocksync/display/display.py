"""What an operator sees of work that takes time: bars of passes, and the step that is under way.

Three displays: a region of the terminal that is redrawn, plain lines, JSON lines. Each has a clock of its
own, so that it shows a sign of life also while the work hears nothing and says nothing: in a long flush, in a
wait for a host.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from blocksync.display.pace import Pace
from blocksync.foreign import shown
from blocksync.progress import Progress, Report, describe, duration
from blocksync.voice import json_line

if TYPE_CHECKING:
    from blocksync.display.bars import Bars

TICK = 0.25
SIGN = 2.0
"""Seconds after which whatever lasts shows a sign of life."""
# When a line says that something still goes on; then once a minute.
_STILL = (SIGN, 5.0, 10.0, 20.0, 60.0)
_MINUTE = 60.0
# Seconds without a word after which a pass is not as fast as it was.
_QUIET = 1.0
_PLAIN_TERMINALS = ("", "dumb", "unknown")


class Display(Protocol):
    """Shows the progress of named tasks, and the steps of a command, while it is entered."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def task(self, name: str, before: str = "") -> Report:
        """A callable that takes this task's progress, instead of an earlier task of this name. `before` is
        what is waited for until its first moment: somebody may be asked for a password meanwhile.
        """
        ...

    def begins(self, name: str) -> None:
        """A step begins."""

    def tells(self, text: str, of: float | None = None) -> None:
        """What the present step is at, and how many seconds it may take."""

    def ends(self, name: str, seconds: float, *, silent: bool = False) -> None:
        """A step is done, which took so many seconds; `silent` steps leave no line for people."""

    def breaks(self, name: str) -> None:
        """A step is not done, and over."""

    def aside(self, what: str = "") -> AbstractContextManager[None]:
        """Meanwhile nothing is redrawn: somebody may be asked on this terminal. `what` is waited for, if
        anything.
        """
        ...


def display(
    stream: TextIO | None = None, *, json_lines: bool = False, color: bool = True, quiet: bool = False
) -> Display:
    """The display that fits `stream` (standard error by default): JSON lines if asked for, a live region on a
    terminal that can move its cursor, plain lines elsewhere; nothing if `quiet`.
    """
    if quiet:
        return Silent()
    stream = sys.stderr if stream is None else stream
    if json_lines:
        return JsonLines(stream)
    if stream.isatty() and os.environ.get("TERM", "").lower() not in _PLAIN_TERMINALS:
        return Live(stream, color=color)
    return PlainLines(stream)


def _now() -> float:
    return time.monotonic()


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def task(self, name: str, before: str = "") -> Report:
        """As `Display.task`."""
        return lambda progress: None

    def begins(self, name: str) -> None:
        """As `Display.begins`."""

    def tells(self, text: str, of: float | None = None) -> None:
        """As `Display.tells`."""

    def ends(self, name: str, seconds: float, *, silent: bool = False) -> None:
        """As `Display.ends`."""

    def breaks(self, name: str) -> None:
        """As `Display.breaks`."""

    def aside(self, what: str = "") -> AbstractContextManager[None]:
        """As `Display.aside`."""
        return nullcontext()


@dataclass(slots=True)
class Going:
    """Something that goes on: since when (monotonic seconds), and how often that was said."""

    name: str
    since: float = field(default_factory=lambda: _now())  # noqa: PLW0108 (asked for each time: tests set it)
    said: int = 0

    def lasted(self) -> float:
        return _now() - self.since

    def is_due(self) -> bool:
        """Whether it is time to say that it still goes on; then it counts as said."""
        due = _STILL[self.said] if self.said < len(_STILL) else _MINUTE * (self.said - len(_STILL) + 2)
        if self.lasted() < due:
            return False
        self.said += 1
        return True


@dataclass(slots=True)
class StepDisplay(Going):
    """A step under way."""

    detail: str = ""
    of: float | None = None

    def describe(self) -> str:
        """One line, whole seconds."""
        of = "" if self.of is None else f" of {self.of:.0f}"
        detail = f" | {self.detail}" if self.detail else ""
        return f"{self.name}: {self.lasted():.0f}{of} s{detail}"


@dataclass(slots=True)
class Task(Going):
    """A pass under way. `moment` is the latest, None before the first, and `at` when it came."""

    moment: Progress | None = None
    at: float = 0.0
    pace: Pace = field(default_factory=Pace)
    # When the last line about it was written.
    written: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.moment is not None and self.moment.is_over

    def note(self, moment: Progress) -> None:
        self.moment, self.at = moment, _now()
        self.pace.note(moment)

    def age(self) -> None:
        """Let a pass that says nothing become slower."""
        if (now := self.now()) is not None and _now() - self.at > _QUIET:
            self.pace.note(now)

    def now(self) -> Progress | None:
        """The latest moment, with the time that has passed since."""
        if self.moment is None or self.is_over:
            return self.moment
        return replace(self.moment, seconds=round(self.moment.seconds + _now() - self.at, 6))

    def describe(self) -> str:
        """One line, without its name."""
        self.age()
        return "" if self.moment is None else describe(self.moment, self.pace.rate, self.pace.eta)


class _Display:
    """What all displays have in common: what goes on, and the clock. Everything happens under one lock."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._tasks: dict[str, Task] = {}
        # What a task waits for before its first moment, and what is waited for aside.
        self._waits: list[Going] = []
        self._steps: list[StepDisplay] = []
        self._asides = 0
        self._left = threading.Event()
        self._clock: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._clock is not None:
            self._clock.join()

    def task(self, name: str, before: str = "") -> Report:
        """As `Display.task`."""
        task = Task(shown(name))
        waits = [Going(shown(f"{name}: {before}"))] if before else []
        with self._lock:
            self._tasks[name] = task
            for each in waits:
                self._wait(each)
        self._start_clock()

        def report(progress: Progress) -> None:
            with self._lock:
                while waits:
                    self._wait_no_more(waits.pop())
                task.note(progress)
                self._moved(task)

        return report

    def begins(self, name: str) -> None:
        """As `Display.begins`."""
        with self._lock:
            self._steps.append(StepDisplay(shown(name)))
            self._begun(self._steps[-1])
        self._start_clock()

    def tells(self, text: str, of: float | None = None) -> None:
        """As `Display.tells`."""
        with self._lock:
            if self._steps:
                self._steps[-1].detail, self._steps[-1].of = shown(text), of

    def ends(self, name: str, seconds: float, *, silent: bool = False) -> None:
        """As `Display.ends`."""
        with self._lock:
            step = self._take_step(name)
            self._drop_tasks_that_are_over(silent=silent)
            self._done(step, seconds, silent=silent)

    def breaks(self, name: str) -> None:
        """As `Display.breaks`."""
        with self._lock:
            self._broken(self._take_step(name))

    @contextmanager
    def aside(self, what: str = "") -> Iterator[None]:
        """As `Display.aside`."""
        wait = Going(shown(what))
        with self._lock:
            self._asides += 1
            self._clear()
            if what:
                self._wait(wait)
        self._start_clock()
        try:
            yield
        finally:
            with self._lock:
                self._asides -= 1
                self._wait_no_more(wait)

    def _take_step(self, name: str) -> StepDisplay:
        step = next(
            (each for each in reversed(self._steps) if each.name == shown(name)), StepDisplay(shown(name))
        )
        self._steps = [each for each in self._steps if each is not step]
        return step

    def _drop_tasks_that_are_over(self, *, silent: bool) -> None:
        # The line of the step stands for them.
        if not silent:
            self._tasks = {name: task for name, task in self._tasks.items() if not task.is_over}

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = threading.Thread(target=self._tick, name="display", daemon=True)
            self._clock.start()

    def _tick(self) -> None:
        while not self._left.wait(TICK):
            with self._lock:
                self._look()

    def _line(self, text: str) -> None:
        # Whoever closed the stream wants to see nothing; the work goes on.
        with suppress(OSError, ValueError):
            print(text, file=self._stream, flush=True)

    # What each display does with it.

    def _wait(self, wait: Going) -> None:
        self._waits.append(wait)

    def _wait_no_more(self, wait: Going) -> None:
        self._waits = [each for each in self._waits if each is not wait]

    def _moved(self, task: Task) -> None:
        """A task has a new moment."""

    def _begun(self, step: StepDisplay) -> None:
        """A step was begun."""

    def _done(self, step: StepDisplay, seconds: float, *, silent: bool) -> None:
        """A step was done."""

    def _broken(self, step: StepDisplay) -> None:
        """A step was broken off."""

    def _look(self) -> None:
        """Time has passed."""

    def _clear(self) -> None:
        """Leave the terminal to somebody else."""

    def _say_what_is_waited_for(self) -> None:
        for wait in self._waits:
            if wait.is_due():
                self._line(f"{wait.name}: {duration(wait.lasted())}")


class JsonLines(_Display):
    """One JSON object a line. Of a task: every field of Progress, rate and time to go, one a second and one
    at the end. Of a step: one as it begins and ends, and meanwhile now and then.
    """

    INTERVAL = 1.0

    def _moved(self, task: Task) -> None:
        if task.is_over or self._is_due(task):
            self._write_task(task)

    def _is_due(self, task: Task) -> bool:
        return not task.written or _now() - task.written >= self.INTERVAL

    def _look(self) -> None:
        for task in self._tasks.values():
            if task.moment is not None and not task.is_over and self._is_due(task):
                self._write_task(task)
        for going in (*self._waits, *self._steps):
            if going.is_due():
                self._write_step(going, "running", going.lasted())

    def _wait(self, wait: Going) -> None:
        super()._wait(wait)
        self._write_step(wait, "begun", 0.0)

    def _wait_no_more(self, wait: Going) -> None:
        if wait in self._waits:
            self._write_step(wait, "done", wait.lasted())
        super()._wait_no_more(wait)

    def _begun(self, step: StepDisplay) -> None:
        self._write_step(step, "begun", 0.0)

    def _done(self, step: StepDisplay, seconds: float, *, silent: bool) -> None:
        self._write_step(step, "done", seconds)

    def _broken(self, step: StepDisplay) -> None:
        self._write_step(step, "failed", step.lasted())

    def _write_task(self, task: Task) -> None:
        now = task.now()
        if now is None:
            return
        task.written = _now()
        task.age()
        eta = task.pace.eta
        outlook = {"rate": round(task.pace.rate), "eta": None if eta is None else round(eta, 1)}
        self._line(json_line("progress", task=task.name, **asdict(now), **outlook))

    def _write_step(self, step: Going, status: str, seconds: float) -> None:
        detail = step.detail if isinstance(step, StepDisplay) else ""
        of = step.of if isinstance(step, StepDisplay) else None
        told = {"status": status, "seconds": round(seconds, 3), "of": of, "detail": detail}
        self._line(json_line("step", step=step.name, **told))


class PlainLines(_Display):
    """Lines for logs, pipes, and terminals that cannot move their cursor: of a task every few seconds, of
    what lasts at growing intervals.
    """

    INTERVAL = 5.0

    def _moved(self, task: Task) -> None:
        if self._is_due(task):
            self._write_task(task)

    def _is_due(self, task: Task) -> bool:
        now = task.now()
        if now is None or task.is_over or now.seconds < SIGN - TICK:
            return False
        return not task.written or _now() - task.written >= self.INTERVAL

    def _look(self) -> None:
        for task in self._tasks.values():
            if self._is_due(task):
                self._write_task(task)
        for step in self._steps:
            if step.is_due():
                self._line(step.describe())
        self._say_what_is_waited_for()

    def _write_task(self, task: Task) -> None:
        task.written = _now()
        self._line(f"{task.name}: {task.describe()}")

    def _done(self, step: StepDisplay, seconds: float, *, silent: bool) -> None:
        if not silent:
            self._line(_finished(step, seconds))


class Live(_Display):
    """A region at the end of the terminal, redrawn in place: a bar a task, and the step that is under way.
    Whatever else is written to the stream scrolls above it. Nothing is drawn for what is over soon.
    """

    DELAY = 0.5

    def __init__(self, stream: TextIO, *, color: bool = True) -> None:
        super().__init__(stream)
        self._color = color
        self._bars: Bars | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        with self._lock:
            if self._bars is not None:
                self._bars.leave(self._visible())

    def _wait(self, wait: Going) -> None:
        super()._wait(wait)
        self._clear()

    def _look(self) -> None:
        self._say_what_is_waited_for()
        tasks, step = self._visible(), self._present()
        if not self._asides and not self._waits and (tasks or step or self._bars is not None):
            self._drawn().show(tasks, step)

    def _visible(self) -> list[Task]:
        return [task for task in self._tasks.values() if (now := task.now()) and now.seconds >= self.DELAY]

    def _present(self) -> str:
        step = self._steps[-1] if self._steps else None
        return "" if step is None or step.lasted() < SIGN - TICK else step.describe()

    def _drawn(self) -> "Bars":
        if self._bars is None:
            # Imported late: most passes over a volume that did not change are over before this is needed.
            from blocksync.display.bars import Bars  # noqa: PLC0415

            self._bars = Bars(self._stream, color=self._color)
        return self._bars

    def _done(self, step: StepDisplay, seconds: float, *, silent: bool) -> None:
        if silent:
            return
        if self._bars is None:
            self._line(_finished(step, seconds))
        else:
            self._bars.show(self._visible(), "")
            self._bars.above(_finished(step, seconds))

    def _clear(self) -> None:
        if self._bars is not None:
            self._bars.erase()


def _finished(step: Going, seconds: float) -> str:
    return f"{seconds:8.2f} s  {step.name}"
