"""kill -9 at any point of a pass: nothing outside the range is touched, no digest file lies, and the same
command makes the target equal. Points are seeded and spread over every system call of the whole run: before
it, halfway through it, after it; and over time, for what lies between the calls.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from forked import Action, Ended, Engine, Rule
from sync_job import SyncJob, claims
from write_log import parse

from blocksync.digests import digest_file
from blocksync.digests.digest_file import HEADER_SIZE, FileHeader, Untrusted

KIB = 1024
KILLED = -9
KILLS = (Action.KILL_BEFORE, Action.KILL_TORN, Action.KILL_AFTER)

POINTS = [40, pytest.param(800, marks=pytest.mark.long)]
TIMED_POINTS = [12, pytest.param(200, marks=pytest.mark.long)]

# size, target offset, bytes after the range, block size, with a digest file, after an earlier pass
SHAPES = {
    "first pass, no digest file": (600 * KIB, 64 * KIB, 4096, 4096, False, False),
    "first pass, tail inside a sector": (500 * KIB + 333, 63 * 512, 5000, 4096, True, False),
    "second pass": (700 * KIB, 2048 * 512, 4096, 4096, True, True),
    "second pass, large blocks, tail inside a sector": (900 * KIB + 1, 512, 1, 65536, True, True),
}
Attach = Callable[[Path], Path]


class Points:
    """A job, and passes over it that are killed. First passes begin anew each time, with the target put back;
    later ones find what the one before left, and a guest that wrote on.
    """

    def __init__(self, engine: Engine, job: SyncJob, random: Random, *, digests: bool, earlier: bool) -> None:
        self._engine = engine
        self._job = job
        self._random = random
        self._with_digests = digests
        self._earlier = earlier
        self._files = job.files()
        if earlier:
            assert self._run().code == 0
        self._begin()
        log = job.folder / "log"
        self.usual = self._run(log=log)
        assert self.usual.code == 0, self.usual
        self.calls = len(parse(log))

    def _run(self, **options: object) -> Ended:
        argv = self._job.argv(digests=self._with_digests)
        return self._engine.run(*argv, watch=self._job.watch, **options)

    def _begin(self) -> None:
        if self._earlier:
            self._job.dirty(self._random, 8)
        else:
            self._job.put_back(self._files)

    def kill_at_a_call(self) -> bool:
        """Kill a pass at some call, and half the time the one that resumes it. Whether any was killed."""
        self._begin()
        killed = False
        for _ in range(self._random.choice((1, 2))):
            rule = Rule(action=self._random.choice(KILLS), nth=self._random.randint(1, self.calls))
            ended = self._run(rule=rule)
            killed |= self._check(ended, str(rule))
        self._resume(str(rule))
        return killed

    def kill_at_a_time(self) -> bool:
        """Kill a pass at some time of its usual duration. Whether it was killed."""
        self._begin()
        delay = self._random.uniform(0, self.usual.seconds)
        killed = self._check(self._run(kill_after=delay), f"after {delay} s")
        self._resume(f"after {delay} s")
        return killed

    def _check(self, ended: Ended, place: str) -> bool:
        assert ended.code in (0, KILLED), (place, ended)
        held = self._job.held()
        assert self._job.outside(held) == self._job.surround, place
        assert self._job.lies(held) == [], place
        return ended.code == KILLED

    def _resume(self, place: str) -> None:
        ended = self._run()
        assert ended.code == 0, (place, ended)
        held = self._job.held()
        assert held == self._job.expected(), place
        assert self._job.lies(held) == [], place


def kill(count: int, once: Callable[[], bool]) -> None:
    """Kill until so many attempts have. Threads make no two runs alike, and a guest writes more at one time
    than at another: a point may lie after the end of the pass that it was drawn for.
    """
    attempts = (once() for _ in range(8 * count))
    assert sum(islice(filter(None, attempts), count)) == count


@pytest.fixture(params=SHAPES)
def points(request: pytest.FixtureRequest, engine: Engine, workplace: Path) -> Points:
    size, offset, after, block_size, digest_file, earlier = SHAPES[request.param]
    random = Random(request.param)
    job = SyncJob.make(workplace, random, size=size, offset=offset, after=after, block_size=block_size)
    return Points(engine, job, random, digests=digest_file, earlier=earlier)


@pytest.mark.parametrize("count", POINTS)
def test_a_pass_killed_at_any_call_is_resumed(points: Points, count: int) -> None:
    kill(count, points.kill_at_a_call)


@pytest.mark.parametrize("count", TIMED_POINTS)
def test_a_pass_killed_at_any_time_is_resumed(points: Points, count: int) -> None:
    kill(count, points.kill_at_a_time)


def is_whole(job: SyncJob) -> bool:
    """Whether the header of the digest file is: a kill inside that write is a crash that tears it."""
    try:
        FileHeader.unpack(job.digests.read_bytes()[:HEADER_SIZE])
    except Untrusted:
        return False
    return True


@pytest.mark.parametrize("block_size", [4096, 16384])
@pytest.mark.parametrize("count", POINTS)
def test_a_limited_pass_killed_at_any_call_costs_what_it_was_about(
    engine: Engine, workplace: Path, block_size: int, count: int
) -> None:
    random = Random(block_size)
    job = SyncJob.make(workplace, random, size=900 * KIB + 333, offset=8192, after=99, block_size=block_size)
    others = 0

    def once() -> bool:
        nonlocal job, others
        job = replace(job, only=None)
        assert engine.run(*job.argv()).code == 0
        job = job.dirtied(random, 4)
        killed = False
        for _ in range(random.choice((1, 2))):
            rule = Rule(action=random.choice(KILLS), nth=random.randint(1, 60))
            ended = engine.run(*job.argv(), watch=job.watch, rule=rule)
            assert ended.code in (0, KILLED), (rule, ended)
            killed |= ended.code == KILLED
            assert job.outside(job.held()) == job.surround, rule
            assert job.lies(job.held()) == [], rule
        whole = is_whole(job)
        if whole:
            blocks, touched = range(-(-job.size // block_size)), job.aimed_at()
            chunk = digest_file.CHUNK_DIGESTS
            about = {block // chunk for block in touched}
            known = claims(job.digests)
            assert {block for block in blocks if block // chunk not in about} <= known.keys(), rule
            others += len(known.keys() - {block for block in blocks if block // chunk not in about})
        ended = engine.run(*job.argv())
        assert ended.code == 0, (rule, ended)
        assert job.held() == job.expected(), rule
        assert job.lies(job.held()) == [], rule
        report = ended.report
        assert report["compared_all"] is not whole, rule
        assert max(report["bytes_read"], report["target_bytes_read"]) <= len(job.aimed_at()) * block_size, (
            rule
        )
        return killed

    kill(count, once)
    # Most kills leave even what is beside the blocks of the pass.
    assert others


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("count", POINTS)
def test_a_pass_to_a_block_device_killed_at_any_call_is_resumed(
    engine: Engine, workplace: Path, loop: Callable[..., Path], sector: int, count: int
) -> None:
    random = Random(sector)
    job = SyncJob.make(
        workplace,
        random,
        size=400 * KIB + 300,
        offset=8192,
        after=4096 - 300,
        attach=lambda backing: loop(backing, "--sector-size", sector),
    )
    points = Points(engine, job, random, digests=True, earlier=True)
    kill(count // 2, points.kill_at_a_call)


def test_a_target_file_that_a_killed_pass_was_making_does_not_hinder_the_next(
    engine: Engine, workplace: Path
) -> None:
    job = SyncJob.make(workplace, Random(1), size=200 * KIB)
    job.target.unlink()
    first_write = Rule(action=Action.KILL_BEFORE, call="pwrite", role="T")
    log = workplace / "log"
    assert engine.run(*job.argv(), watch=job.watch, rule=first_write, log=log).code == KILLED
    for nth in range(1, len(parse(log)) + 1):
        job.put_back({})
        rule = Rule(action=Action.KILL_AFTER, nth=nth)
        engine.run(*job.argv(), watch=job.watch, rule=rule)
        ended = engine.run(*job.argv())
        assert ended.code == 0, (rule, ended)
        assert job.target.read_bytes() == job.expected()
