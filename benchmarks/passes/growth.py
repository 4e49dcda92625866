"""How cost grows: with the size of the device, with the number of dirty extents, and memory with neither."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.passes.contenders import OURS, timed
from benchmarks.passes.workloads import Place

BLOCK = 64 * 1024
TIB = 2**40
MEMORY_LIMIT = 150 * 10**6
# Passes of a tenth of a second: a median of few is a matter of luck.
SHORT_ROUNDS = 5
OFF_THE_LINE = 0.15


@dataclass(frozen=True, slots=True)
class Series:
    """A table of its own: what was varied, what came out, and the verdict on the bar that it is about."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    claim: str
    verdict: str


def by_size(place: Place, rounds: int) -> Series:
    """A pass in which nothing changed, over an eighth, a quarter, a half and all of the image."""
    sizes = [place.size // part for part in (8, 4, 2, 1)]
    seconds = []
    for size in sizes:
        digests = place.digests(f"size-{size}")
        limits = ("--size", str(size), "--digests", str(digests))
        argv = (str(OURS), "sync", str(place.source), str(place.target), *limits)
        timed(argv)
        seconds.append(statistics.median(timed(argv).seconds for _ in range(SHORT_ROUNDS * rounds)))
        digests.unlink()
    line = statistics.linear_regression(sizes, seconds)
    errors = [
        abs(took - line.intercept - line.slope * size) / took
        for size, took in zip(sizes, seconds, strict=True)
    ]
    rows = tuple(
        (f"{size / 2**20:,.0f} MiB", f"{took:.3f}", f"{size / took / 1e9:.1f}")
        for size, took in zip(sizes, seconds, strict=True)
    )
    return Series(
        "Cost by size (nothing changed, digest file)",
        ("size", "seconds", "GB/s"),
        rows,
        f"cost grows linearly with size (no figure more than {OFF_THE_LINE:.0%} off the line through all)",
        "met" if max(errors) <= OFF_THE_LINE else "NOT met",
    )


def by_extents(place: Place, rounds: int) -> Series:
    """A pass over only N dirty extents, `--only`, with a digest file and without."""
    most = place.size // BLOCK
    counts = sorted({0, min(100, most // 2), min(1000, most // 2), min(10000, most // 2)})
    listed, digests = place.folder / "extents", place.digests("extents")
    sides = (str(OURS), "sync", "--json", str(place.source), str(place.target))
    timed((*sides, "--digests", str(digests)))
    rows, met = [], True
    for count in counts:
        step = max(1, most // max(1, count))
        listed.write_text("".join(f"{number * step * BLOCK} {BLOCK}\n" for number in range(count)))
        plain = [timed((*sides, "--only", str(listed))) for _ in range(rounds)]
        remembered = [
            timed((*sides, "--only", str(listed), "--digests", str(digests))) for _ in range(rounds)
        ]
        read = [json.loads(timing.output)["bytes_read"] for timing in (*plain, *remembered)]
        met = met and set(read) == {count * BLOCK}
        took = [statistics.median(timing.seconds for timing in each) for each in (plain, remembered)]
        rows.append((f"{count:,}", *(f"{each:.3f}" for each in took), f"{read[0] / 2**20:,.1f} MiB"))
    return Series(
        f"Cost of `--only` N extents of 64 KiB, of {place.size / 2**20:,.0f} MiB",
        ("extents", "seconds", "seconds with a digest file", "read of the source"),
        tuple(rows),
        "a pass over N dirty extents reads N extents, not the device",
        "met" if met else "NOT met",
    )


def memory(folder: Path, say: Callable[[str], None], size: int = 4 * TIB) -> Series:
    """Peak resident memory on sparse files of 4 TiB and smaller, with a digest file and without."""
    rows, met = [], True
    for whole in (size // 4096, size // 64, size):
        for with_digests in (False, True):
            peak, took = _peak(folder, whole, with_digests)
            allowed = MEMORY_LIMIT + (16 * (whole // BLOCK) if with_digests else 0)
            met = met and peak <= allowed
            say(f"  {whole / 2**30:,.0f} GiB: {peak / 1e6:.0f} MB in {took:.2f} s")
            rows.append(
                (
                    f"{whole / 2**30:,.0f} GiB",
                    "yes" if with_digests else "no",
                    f"{peak / 1e6:,.0f} MB",
                    f"{allowed / 1e6:,.0f} MB",
                    f"{took:.2f}",
                )
            )
    return Series(
        "Peak resident memory, sparse files, blocks of 64 KiB",
        ("size", "digest file", "peak", "allowed", "seconds"),
        tuple(rows),
        "memory stays under 150 MB, plus 16 bytes a block with a digest file",
        "met" if met else "NOT met",
    )


def _peak(folder: Path, size: int, with_digests: bool) -> tuple[int, float]:
    source, target, digests = (folder / name for name in ("hole.img", "hole-copy.img", "hole.digests"))
    try:
        with source.open("wb") as file:
            file.truncate(size)
        options = ("--digests", str(digests)) if with_digests else ()
        sync = (str(OURS), "sync", "--block-size", str(BLOCK), str(source), str(target))
        timing = timed((*sync, *options))
    finally:
        for path in (source, target, digests):
            path.unlink(missing_ok=True)
    return timing.peak, timing.seconds
