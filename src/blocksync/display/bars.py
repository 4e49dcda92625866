"""The region of a terminal that is redrawn, by rich: slow to load, and for passes and steps that last."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from blocksync.display.display import Task

_BAR = 16


class Bars:
    """A bar for each task and a line for the step, at the end of what is on the terminal."""

    def __init__(self, stream: TextIO, *, color: bool) -> None:
        self._console = Console(file=stream, no_color=not color, highlight=False)
        # Standard output is for results: it is nobody's to redirect to the terminal.
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, transient=True)

    def show(self, tasks: "Sequence[Task]", step: str) -> None:
        """Draw the region anew. Texts are `shown` already."""
        line = [Text(_fitting(step, self._width))] if step else []
        # Once stopped it would let the region grow beyond the window.
        self._live.vertical_overflow = "ellipsis"
        self._live.start()
        self._live.update(Group(*_bars(tasks, self._width), *line), refresh=True)

    def above(self, line: str) -> None:
        """Print a line that stays, above the region."""
        self._console.print(Text(line))

    def erase(self) -> None:
        """Erase the region, until it is shown again."""
        self._live.update("")
        self._live.stop()

    def leave(self, tasks: "Sequence[Task]") -> None:
        """Erase the region for good; what bars there are is printed, and stays."""
        self.erase()
        for bars in _bars(tasks, self._width):
            self._console.print(bars)

    @property
    def _width(self) -> int:
        # Some terminals begin a new line when the last column is written to, and the region would climb.
        return max(self._console.width - 1, 1)


def _bars(tasks: "Sequence[Task]", width: int) -> list[RenderableType]:
    """The bars as one table, no wider than so many columns; nothing where there are none."""
    if not tasks:
        return []
    names = max(len(task.name) for task in tasks)
    rest = max(width - names - _BAR - 2, 0)
    table = Table.grid(padding=(0, 1))
    for columns in (names, _BAR, rest):
        table.add_column(no_wrap=True, width=columns)
    for task in tasks:
        bar = ProgressBar(*_of_total(task), width=_BAR)
        table.add_row(Text(task.name), bar, Text(_fitting(task.describe(), rest)))
    return [table]


def _fitting(text: str, width: int) -> str:
    line = Text(text)
    line.truncate(width, overflow="ellipsis")
    return line.plain


def _of_total(task: "Task") -> tuple[float, float]:
    """Total and what is looked at, for a bar."""
    moment = task.moment
    if moment is None or not moment.bytes_total:
        return 1, 1
    return moment.bytes_total, moment.bytes_looked_at
