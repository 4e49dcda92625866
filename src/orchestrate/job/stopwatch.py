"""How long each step of a command took: shown while it runs, kept in its report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from blocksync.progress import Tell, untold
from blocksync.voice import voice


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step."""

    name: str
    seconds: float


@dataclass(slots=True)
class Stopwatch:
    """Collects steps. `begins` and `breaks` are told each name as it begins or fails, `ends` each step as it
    ends, and `tell` what the present one is at.
    """

    begins: Callable[[str], None] = lambda _: None
    ends: Callable[[Step], None] = lambda _: None
    breaks: Callable[[str], None] = lambda _: None
    tell: Tell = untold
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block under `name`; a step that raises is not counted as done."""
        self.begins(name)
        voice.record("step", f"{name}: begun")
        start = time.monotonic()
        try:
            yield
        except BaseException:
            self.breaks(name)
            raise
        voice.record("step", f"{name}: done in {time.monotonic() - start:.2f} s")
        self.steps.append(Step(name, time.monotonic() - start))
        self.ends(self.steps[-1])
