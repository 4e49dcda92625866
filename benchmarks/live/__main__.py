"""`python -m benchmarks.live`: measure the last pass by disk size, then write docs/benchmarks/live.md.

Sparse volumes of several sizes get the same amount of changes, at seeded places all over them; the pass is
given the list of what changed, as a snapshot's exception table gives it, and a digest file.
"""

import argparse
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.passes import machine
from benchmarks.passes.contenders import OURS, timed

GIB = 2**30
RUN = 256 * 1024
CHANGED = 64 * 2**20
SIZES = (1, 10, 100)
FACTOR = 1.3
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "live.md"


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume of `gib` GiB, its target and what a pass keeps, in `folder`."""

    folder: Path
    gib: int

    @property
    def source(self) -> Path:
        return self.folder / f"source-{self.gib}.img"

    @property
    def _changes(self) -> Path:
        return self.folder / f"changes-{self.gib}"

    @property
    def _pass(self) -> tuple[str, ...]:
        target, digests = (self.folder / f"{name}-{self.gib}" for name in ("target", "digests"))
        return (str(OURS), "sync", str(self.source), str(target), "--digests", str(digests))

    def set_up(self) -> None:
        """A first pass over an empty volume."""
        with self.source.open("wb") as file:
            file.truncate(self.gib * GIB)
        timed(self._pass)

    def change(self, seed: int) -> None:
        """Write CHANGED bytes in runs, durably, and list where."""
        chance = random.Random(seed)
        places = sorted(RUN * place for place in chance.sample(range(self.gib * GIB // RUN), CHANGED // RUN))
        with self.source.open("r+b", buffering=0) as file:
            for place in places:
                file.seek(place)
                file.write(chance.randbytes(RUN))
            os.fsync(file.fileno())
        self._changes.write_text("".join(f"{place} {RUN}\n" for place in places))

    def last_pass(self) -> float:
        """Seconds of the whole process."""
        return timed((*self._pass, "--only", str(self._changes))).seconds


def measure(folder: Path, rounds: int, sizes: Sequence[int]) -> dict[int, list[float]]:
    """Seconds of the last pass by GiB, the sizes alternating."""
    disks = [Disk(folder, gib) for gib in sizes]
    for disk in disks:
        disk.set_up()
    found: dict[int, list[float]] = {gib: [] for gib in sizes}
    for number in range(rounds):
        for disk in disks:
            disk.change(seed=number)
            found[disk.gib].append(disk.last_pass())
    return found


def page(found: dict[int, list[float]], rows: Sequence[tuple[str, str]], rounds: int) -> str:
    """The page, in Markdown."""
    medians = {gib: statistics.median(seconds) for gib, seconds in found.items()}
    ratio = max(medians.values()) / min(medians.values())
    verdict = "met" if round(ratio, 2) <= FACTOR else "NOT met"
    table = "\n".join(
        f"| {gib} GiB | {medians[gib]:.3f} s | {min(seconds):.3f} to {max(seconds):.3f} s |"
        for gib, seconds in found.items()
    )
    described = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return f"""# The last pass, by disk size

Made by `make bench-live`: sparse volumes, each with {CHANGED // 2**20} MiB of changes in runs of
{RUN // 1024} KiB, listed as a snapshot lists them; a digest file;
{rounds} alternating rounds, whole processes, flushed.

| volume | median | fastest to slowest |
| --- | --- | --- |
{table}

Bar: the medians within {FACTOR} times of each other. They are within {ratio:.2f} times: {verdict}.

| what | value |
| --- | --- |
{described}
"""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of the volumes, in GiB")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="for the images")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-live-") as scratch:
        rows = machine.describe(Path(scratch), [], machine.load())
        found = measure(Path(scratch), options.rounds, options.sizes)
    options.output.write_text(page(found, rows, options.rounds))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
