"""`python -m benchmarks.remote`: measure; write remote and link (.md, .svg, .json) into docs/benchmarks."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.passes import machine, page
from benchmarks.passes.rounds import Outcome, measure
from benchmarks.passes.workloads import Place, Workload
from benchmarks.remote import link_workloads, shaped_link, sshd, workloads
from benchmarks.remote.workloads import Site
from blocksync.sizes import parse_size

PROGRAMS = ["dd", "socat", "rsync", "bdsync", "blocksync-fast"]
SHAPE = shaped_link.Shape(rate=100 * 10**6, round_trip=0.020)
# It takes 89 s: so much that what a connection costs once does not count.
MOST_OVER_LINK = 2**30

HEAD = """\
# Passes between two hosts, side by side

Made by `make bench-remote`: an image of {size:,.0f} MiB (a quarter zeros, a quarter text, half random; seed
{seed}), {rounds} alternating rounds, medians of whole processes from start to exit. The source is behind an
sshd on 127.0.0.1, the target here, so both ends share the processors; the page cache is warm. Peers pull too.
"Flushed" tells whether the time includes making the writes durable; ours always does. The peak memory is the
near end's; 10 MB and less show as about 10 MB. Connection set-up is measured as a pass over a single block,
whose start of the near end's own process is what the same pass takes locally. Before each run the disk is
flushed, and the source read, which bdsync puts out of the page cache.

What bounds these figures stands beside them: connecting (`ssh far true`), reading and hashing (the local
passes), ssh with nothing around it (dd through ssh), TLS with nothing around it (socat).
"""

LINK_HEAD = """\
# Passes over a shaped link, side by side

Made by `make bench-remote`: an image of {size:,.0f} MiB (a quarter zeros, a quarter text, half random; seed
{seed}), {rounds} alternating rounds, medians of whole processes from start to exit; the page cache is warm.
"Flushed" and connection set-up are what they are in [remote.md](remote.md).

The link of 100 Mbit/s with a round trip of 20 ms lies between two network namespaces, each with an address,
an interface and processes of its own: packets leave at the rate that tc's token bucket allows, and each is
held for 10 ms on the way.
"""

REMOTE = page.Page("remote", HEAD)
LINK = page.Page("link", LINK_HEAD)


def main() -> None:
    options = _options()
    load = machine.load()
    # The images are large: a terminated run removes them too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    size = parse_size(options.size)
    with tempfile.TemporaryDirectory(prefix="blocksync-bench-", dir=options.folder) as folder:
        described = [*machine.describe(Path(folder), PROGRAMS, load), ("OpenSSH", sshd.version())]
        place = Place(Path(folder), size, options.seed)
        say(f"making an image of {options.size} …")
        place.set_up()
        pages = {REMOTE: _on_loopback(place, options), LINK: _over_link(place, options)}
    settings = page.Settings(
        size=size, rounds=options.rounds, seed=options.seed, machine=described, load=load
    )
    for one, outcomes in pages.items():
        if outcomes:
            page.write(options.output, one, outcomes, [], settings)
    say(f"written: {options.output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote", description=__doc__)
    names = [make.__name__ for make in workloads.WORKLOADS]
    parser.add_argument("--size", default="4GiB", help="of the image (default 4GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="of every contender (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="of the image's bytes and of the order")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the images")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the results")
    parser.add_argument("--only", choices=[*names, "link"], action="append", help="measure only this")
    return parser.parse_args()


def _on_loopback(place: Place, options: argparse.Namespace) -> list[Outcome]:
    makers = [make for make in workloads.WORKLOADS if not options.only or make.__name__ in options.only]
    with sshd.serving(place.folder / "loopback", "127.0.0.1") as server:
        return [_outcome(lambda make=make: make(Site(place, server)), options) for make in makers]


def _over_link(place: Place, options: argparse.Namespace) -> list[Outcome]:
    if options.only and "link" not in options.only:
        return []
    with _linked(place) as site:
        first = _outcome(lambda: link_workloads.unchanged(site, SHAPE), options)
        small = replace(site, place=replace(place, size=min(place.size, MOST_OVER_LINK)))
        return [first, _outcome(lambda: link_workloads.full_copy(small, SHAPE), options)]


@contextmanager
def _linked(place: Place) -> Iterator[Site]:
    folder = place.folder / "link"
    with (
        shaped_link.linked(SHAPE) as ends,
        sshd.serving(folder, shaped_link.FAR_ADDRESS, near=ends.near, far=ends.far) as server,
    ):
        yield Site(place, server)


def _outcome(make: Callable[[], Workload], options: argparse.Namespace) -> Outcome:
    workload = make()
    say(workload.title)
    return measure(workload, options.rounds, options.seed, say)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
