"""`python -m benchmarks.passes`: measure, then write docs/benchmarks/passes.md, .svg and .json."""

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.passes import growth, machine, page, workloads
from benchmarks.passes.rounds import Outcome, measure
from benchmarks.passes.workloads import Place
from blocksync.sizes import parse_size

PEERS = ["dd", "cp", "cmp", "rsync", "qemu-img", "nbdcopy", "fio", "bdsync", "blocksync-fast"]

WORKLOADS = (
    workloads.unchanged_with_digests,
    workloads.unchanged_without_digests,
    workloads.cold_direct,
    workloads.cold_loop,
    workloads.one_percent_dirty,
    workloads.full_copy,
    workloads.new_sparse_file,
)


def main() -> None:
    options = _options()
    load = machine.load()
    # The images are large: a terminated run removes them too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="blocksync-bench-", dir=options.folder) as folder:
        place = Place(Path(folder), parse_size(options.size), options.seed)
        described = machine.describe(place.folder, PEERS, load)
        say(f"making an image of {options.size} …")
        place.set_up()
        outcomes = [_outcome(make, place, options.rounds) for make in _chosen(options.only)]
        series = [] if options.only else _series(place, options.rounds)
    settings = page.Settings(
        size=place.size, rounds=options.rounds, seed=options.seed, machine=described, load=load
    )
    page.write(options.output, page.PASSES, outcomes, series, settings)
    say(f"written: {options.output}")


def _options() -> argparse.Namespace:
    names = [make.__name__ for make in WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.passes", description=__doc__)
    parser.add_argument("--size", default="4GiB", help="of the image (default 4GiB)")
    parser.add_argument("--rounds", type=int, default=7, help="of every contender (default 7)")
    parser.add_argument("--seed", type=int, default=1, help="of the image's bytes and of the order")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the images")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the results")
    parser.add_argument("--only", choices=names, action="append", help="measure only this; repeatable")
    return parser.parse_args()


def _chosen(only: list[str] | None) -> list[workloads.Maker]:
    return [make for make in WORKLOADS if not only or make.__name__ in only]


def _outcome(make: workloads.Maker, place: Place, rounds: int) -> Outcome:
    with ExitStack() as stack:
        made = make(place)
        workload = made if isinstance(made, workloads.Workload) else stack.enter_context(made)
        say(workload.title)
        return measure(workload, rounds, place.seed, say)


def _series(place: Place, rounds: int) -> list[growth.Series]:
    say("growth")
    # The workloads left other bytes behind.
    place.copied(place.target)
    made = [growth.by_size(place, rounds), growth.by_extents(place, rounds)]
    return [*made, growth.memory(place.folder, say)]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
