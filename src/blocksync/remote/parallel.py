"""Several pulls at a time, each into a range of its own of one target, which is held open once for all."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from blocksync import passes
from blocksync.devices import device as devices
from blocksync.devices import target
from blocksync.devices.target import Range
from blocksync.digests.trust import Settlement
from blocksync.errors import Usage
from blocksync.interruption import Stop, stop_on_signals
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Progress, Report
from blocksync.remote.far_end import FarEnd
from blocksync.remote.passes import carry_out
from blocksync.remote.pull import Pull
from blocksync.remote.watching import TICK, PassWatch
from blocksync.transports.interface import Transport
from blocksync.wire.link import PATIENCE

# Two hide each other's set-up and keep both hosts at work. Each takes one of the sessions that sshd gives a
# connection: ten, if nobody changed that.
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class PassPart:
    """One of several passes, and who is told how far it is. `size` must be given in the request."""

    request: PassRequest
    progress: Report


def run_several(
    parts: Sequence[PassPart],
    *,
    transport: Transport,
    name: str | None = None,
    at_once: int = AT_ONCE,
    patience: float = PATIENCE,
    meet: Callable[[], FarEnd] | None = None,
) -> list[PassReport]:
    """Pull several volumes into ranges of one target, at most `at_once` at a time; one after the other where
    a rate is given, which is for all of them together.

    The target must exist, unless nothing is to be written. The requests have it in common, and how it is
    opened; their ranges share no byte. Digest files are committed together when the last pass has ended, as
    far as each of them came. `meet` gives each pass an agent that was started before, instead of a new one.
    The first failure stops the other passes at a safe point and is raised;
    otherwise as `blocksync.remote.run`. Progress is told in the thread that calls.
    """
    if not parts:
        return []
    requests = [part.request for part in parts]
    for request in requests:
        passes.check_options(request)
    _check_ranges(requests)
    limited = any(request.bytes_per_second for request in requests)
    with stop_on_signals() as stop, _prepared(requests) as pulls:

        def start() -> FarEnd:
            return FarEnd(transport, name or transport.describe(), patience=patience)

        def pull(number: int, watch: PassWatch) -> PassReport:
            with (meet or start)() as far:
                return carry_out(pulls[number], requests[number], far, watch)

        return _Several(parts, pull, stop).run(1 if limited else at_once)


def _check_ranges(requests: Sequence[PassRequest]) -> None:
    """Raises Usage unless every range is known, and none shares a byte with another."""
    ranges = sorted((request.target_offset, _size(request)) for request in requests)
    for (offset, size), (following, _) in pairwise(ranges):
        if offset + size > following:
            raise Usage(
                requests[0].target, f"is to hold two volumes at {following}", "give each a range of its own"
            )


def _size(request: PassRequest) -> int:
    if request.size is None:
        raise Usage(request.source, "has no size given", "say how much of it is to be copied")
    return request.size


@contextmanager
def _prepared(requests: Sequence[PassRequest]) -> Iterator[list[Pull]]:
    """A pull for each request. Their target is guarded and claimed once, settled and released at the end."""
    one = requests[0]
    pulls = [Pull.prepare(request) for request in requests]
    if one.dry_run:
        yield pulls
        return
    device = devices.measure(one.target)
    span = Range(
        path=one.target,
        # As aligned as every range is: direct I/O is for all of them or for none.
        offset=math.gcd(*(request.target_offset for request in requests)),
        size=0,
        direct=one.direct,
        cache=one.cache,
        overrides=one.overrides,
    )
    target.guard(span, device)
    with target.opened(span, device) as opened:
        settlement = Settlement(opened)
        try:
            yield [Pull(device, settlement) for _ in requests]
        finally:
            settlement.settle()


class _Several:
    """Passes in threads of their own, and the thread that started them: it shows their progress, and has them
    stopped by signals and when one fails.
    """

    def __init__(
        self, parts: Sequence[PassPart], pull: Callable[[int, PassWatch], PassReport], stop: Stop
    ) -> None:
        self._parts = parts
        self._pull = pull
        self._stop = stop
        self._waiting = iter(range(len(parts)))
        self._lock = threading.Lock()
        self._moments: dict[int, Progress] = {}
        self._reports: dict[int, PassReport] = {}
        self._failures: list[BaseException] = []

    def run(self, at_once: int) -> list[PassReport]:
        """The reports, in the order of the passes. Raises what failed first."""
        count = min(at_once, len(self._parts))
        workers = [threading.Thread(target=self._work, name=f"pull {n}", daemon=True) for n in range(count)]
        for worker in workers:
            worker.start()
        while alive := [worker for worker in workers if worker.is_alive()]:
            alive[0].join(TICK)
            self._show()
        self._show()
        if self._failures:
            raise self._failures[0]
        return [self._reports[number] for number in range(len(self._parts))]

    def _work(self) -> None:
        while (number := self._next()) is not None:
            try:
                self._reports[number] = self._pull(number, self._watch(number))
            except BaseException as error:
                self._fail(error)

    def _next(self) -> int | None:
        # What has not begun is not begun any more once all are to stop.
        with self._lock:
            return None if self._failures else next(self._waiting, None)

    def _watch(self, number: int) -> PassWatch:
        def note(progress: Progress) -> None:
            with self._lock:
                self._moments[number] = progress

        return PassWatch(self._stop, note, time.monotonic())

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failures.append(error)
        self._stop.ask()

    def _show(self) -> None:
        with self._lock:
            moments, self._moments = self._moments, {}
        try:
            for number, progress in moments.items():
                self._parts[number].progress(progress)
        except BaseException as error:
            self._fail(error)
