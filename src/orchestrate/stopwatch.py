"""How long each step of a command took: shown while it runs, kept in its report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from blocksync.voice import voice


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step."""

    name: str
    seconds: float


@dataclass(slots=True)
class Stopwatch:
    """Collects steps; `announce` is told each name as it begins and each step as it ends."""

    begins: Callable[[str], None] = lambda _: None
    ends: Callable[[Step], None] = lambda _: None
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block under `name`; a step that raises is not counted as done."""
        self.begins(name)
        voice.record("step", f"{name}: begun")
        start = time.monotonic()
        yield
        voice.record("step", f"{name}: done in {time.monotonic() - start:.2f} s")
        self.steps.append(Step(name, time.monotonic() - start))
        self.ends(self.steps[-1])
