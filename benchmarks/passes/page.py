"""What a run came to, as a page of Markdown, a picture and the raw figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.passes import picture
from benchmarks.passes.contenders import Contender
from benchmarks.passes.growth import Series
from benchmarks.passes.rounds import Outcome

HEAD = """\
# Passes, side by side

Made by `make bench`: an image of {size:,.0f} MiB (a quarter zeros, a quarter text, half random; seed {seed}),
{rounds} alternating rounds, medians of whole processes from start to exit. The page cache is warm unless a
title says otherwise. "Flushed" tells whether the time includes making the writes durable; ours always does.
Peaks of 10 MB and less all show as about 10 MB. Before each run the disk is flushed, and the source read
where the cache is to be warm: bdsync puts it out of there.
"""


QUIET = 0.5
BUSY = """\
**The machine had other work, which kept {load:.1f} processors busy: what follows shows that the bench runs,
and proves nothing about speed.**
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A page's file name without its end, and how it begins: `head` has {size} (MiB), {seed} and {rounds}."""

    name: str
    head: str


PASSES = Page("passes", HEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was asked for: image size in bytes, rounds, seed; the machine, and the load that it had before."""

    size: int
    rounds: int
    seed: int
    machine: list[tuple[str, str]]
    load: float


def write(
    folder: Path,
    page: Page,
    outcomes: list[Outcome],
    series: list[Series],
    settings: Settings,
) -> None:
    """Write a page as NAME.md, NAME.svg and NAME.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    bars = [(outcome.workload.title, outcome.medians) for outcome in outcomes]
    (folder / f"{page.name}.svg").write_text(picture.draw(bars))
    (folder / f"{page.name}.json").write_text(json.dumps(_raw(outcomes, settings), indent=1) + "\n")
    parts = [
        page.head.format(size=settings.size / 2**20, seed=settings.seed, rounds=settings.rounds),
        *([BUSY.format(load=settings.load)] if settings.load > QUIET else []),
        "## Bars\n\n" + _bars(outcomes, series),
        f"![seconds by pass and tool]({page.name}.svg)\n",
        *(_section(outcome, outcome.workload.size or settings.size) for outcome in outcomes),
        *(_series(each) for each in series),
        "## The machine\n\n" + _table(("what", "value"), settings.machine),
    ]
    (folder / f"{page.name}.md").write_text("\n".join(parts))


def _bars(outcomes: list[Outcome], series: list[Series]) -> str:
    rows = [
        (outcome.workload.title, claim, verdict)
        for outcome in outcomes
        for claim, verdict in outcome.verdicts
    ]
    rows += [(each.title, each.claim, each.verdict) for each in series]
    return _table(("pass", "bar", "by this measurement"), rows)


def _section(outcome: Outcome, size: int) -> str:
    medians = outcome.medians
    fastest_first = sorted(outcome.workload.contenders, key=lambda each: medians.get(each.name, 1e9))
    rows = [_row(each, outcome, size) for each in fastest_first]
    facts = "".join(f"\n{fact[0].upper()}{fact[1:]}.\n" for fact in outcome.facts)
    head: tuple[str, ...] = (
        "tool",
        "median",
        "fastest to slowest",
        "rate",
        "against ours",
        "peak memory",
        "flushed",
    )
    if not outcome.workload.writes:
        head, rows = head[:-1], [row[:-1] for row in rows]
    return f"## {outcome.workload.title}\n\n{_table(head, rows)}{facts}"


def _row(contender: Contender, outcome: Outcome, size: int) -> tuple[str, ...]:
    timings = outcome.timings[contender.name]
    if not timings:
        return (contender.name, "missing", "", "", "", "", "")
    median = outcome.medians[contender.name]
    seconds = [timing.seconds for timing in timings]
    ours = outcome.medians.get(outcome.workload.ours)
    return (
        contender.name,
        f"{median:.3f} s",
        f"{min(seconds):.3f} to {max(seconds):.3f} s",
        _rate(size / median) if contender.rated else "",
        "" if ours is None else f"{median / ours:.2f}",
        f"{max(timing.peak for timing in timings) / 1e6:.0f} MB",
        "yes" if contender.flushed else "no",
    )


def _rate(rate: float) -> str:
    return f"{rate / 1e9:.2f} GB/s" if rate >= 1e8 else f"{rate / 1e6:.2f} MB/s"


def _series(series: Series) -> str:
    return f"## {series.title}\n\n{_table(series.head, series.rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _raw(outcomes: list[Outcome], settings: Settings) -> dict[str, object]:
    return {
        "format": 1,
        "size": settings.size,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "machine": dict(settings.machine),
        "seconds": {
            outcome.workload.title: {
                name: [round(timing.seconds, 4) for timing in timings]
                for name, timings in outcome.timings.items()
            }
            for outcome in outcomes
        },
    }
