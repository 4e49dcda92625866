"""Alternating rounds: every contender once a round, each round in another order, so that nobody is always
first after the images were touched."""

import os
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.passes import images
from benchmarks.passes.contenders import Timing
from benchmarks.passes.workloads import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one workload came to: timings by contender (none when missing), facts, verdicts on the bars."""

    workload: Workload
    timings: dict[str, list[Timing]]
    facts: list[str]
    verdicts: list[tuple[str, str]]

    @property
    def medians(self) -> dict[str, float]:
        return {
            name: statistics.median(timing.seconds for timing in timings)
            for name, timings in self.timings.items()
            if timings
        }


def measure(workload: Workload, rounds: int, seed: int, say: Callable[[str], None]) -> Outcome:
    """Run a workload's contenders `rounds` times each."""
    order = random.Random(seed)
    timings: dict[str, list[Timing]] = {contender.name: [] for contender in workload.contenders}
    present = [contender for contender in workload.contenders if contender.present]
    for number in range(rounds):
        for contender in order.sample(present, len(present)):
            contender.reset()
            # What one leaves unflushed, the flush of the next would pay for.
            os.sync()
            images.warm(*workload.cached)
            timing = contender.run()
            timings[contender.name].append(timing)
            say(f"  round {number + 1}: {contender.name} {timing.seconds:.3f} s")
    facts = workload.facts()
    outcome = Outcome(workload, timings, facts, [])
    verdicts = [(bar.claim, bar.verdict(outcome.medians)) for bar in workload.bars]
    return Outcome(workload, timings, facts, verdicts)
