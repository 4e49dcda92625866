"""A crash of the machine at any point of a pass leaves no digest file that lies, and nothing that a further
pass does not put right. Every prefix of the log of writes is replayed, with what was not yet flushed lost,
reordered or torn (write_log.py says what may be).
"""

import errno
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from forked import Action, Engine, Rule
from sync_job import SyncJob
from write_log import Disk, Files, parse

KIB = 1024


class Recorded:
    """A pass that was watched: how it ended, each call, and the files as they were before."""

    def __init__(
        self, engine: Engine, job: SyncJob, fault: "Fault | None" = None, *, digests: bool = True
    ) -> None:
        rule = fault.rule(engine, job) if fault else None
        argv = job.argv(*(fault.more if fault else ()), digests=digests)
        log = job.folder / "log"
        self._disk = Disk(job.files(), (job.folder, job.digests.parent))
        self.ended = engine.run(*argv, watch=job.watch, log=log, rule=rule, stamp="content")
        self.events = parse(log)

    def crashes(self, random: Random) -> Iterator[tuple[str, Files]]:
        """Every state that a crash after any of the calls may leave, each once, and where it comes from."""
        seen = set()
        for number, event in enumerate(self.events):
            self._disk.carry_out(event)
            for files in self._disk.after_crash(random):
                key = hash(tuple(sorted(files.items())))
                if key not in seen:
                    seen.add(key)
                    yield f"a crash after call {number} ({event})", files

    def at_the_end(self) -> Disk:
        """The files after the last call."""
        for event in self.events:
            self._disk.carry_out(event)
        return self._disk


def check_lies(job: SyncJob, files: Files, scratch: Path) -> list[int]:
    """The blocks of which the digest file that the crash left lies."""
    if str(job.digests) not in files:
        return []
    scratch.write_bytes(files[str(job.digests)])
    return job.lies(files.get(str(job.target), b""), scratch)


def nothing(engine: Engine, job: SyncJob, random: Random) -> SyncJob:
    """The target holds something else, and there is no digest file."""
    return job


def no_target(engine: Engine, job: SyncJob, random: Random) -> SyncJob:
    """There is no target file: the pass makes it, with a hole before the range and nothing after it."""
    job.target.unlink()
    return replace(job, surround=(bytes(job.offset), b""))


def an_earlier_pass(engine: Engine, job: SyncJob, random: Random) -> SyncJob:
    """A pass ended well, then the guest wrote."""
    assert engine.run(*job.argv(), stamp="content").code == 0
    job.dirty(random, 6)
    return job


def a_killed_pass(engine: Engine, job: SyncJob, random: Random) -> SyncJob:
    """A pass ended well, the next one was killed halfway through its writes, and the guest wrote on."""
    an_earlier_pass(engine, job, random)
    rule = Rule(action=Action.KILL_AFTER, call="pwrite", role="T", nth=2)
    ended = engine.run(*job.argv(), watch=job.watch, rule=rule, stamp="content")
    assert ended.code == -signal.SIGKILL
    job.dirty(random, 4)
    return job


def a_list_of_what_changed(engine: Engine, job: SyncJob, random: Random) -> SyncJob:
    """A pass ended well, the guest wrote, and what it wrote is known."""
    assert engine.run(*job.argv(), stamp="content").code == 0
    return job.dirtied(random, 6)


def a_killed_limited_pass(engine: Engine, job: SyncJob, random: Random) -> SyncJob:
    """The pass over what the guest wrote was killed halfway through its writes."""
    job = a_list_of_what_changed(engine, job, random)
    rule = Rule(action=Action.KILL_AFTER, call="pwrite", role="T", nth=2)
    ended = engine.run(*job.argv(), watch=job.watch, rule=rule, stamp="content")
    assert ended.code == -signal.SIGKILL
    return job


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault at the `nth` call of its kind after the first write to the target, and the exit code of it."""

    call: str
    role: str
    nth: int = 1
    action: Action = Action.FAIL
    value: int = errno.EIO
    code: int = 1
    more: tuple[str, ...] = ()

    def rule(self, engine: Engine, job: SyncJob) -> Rule:
        """The rule that means that call: how many come before is seen in a pass that is then undone."""
        files, log = job.files(), job.folder / "log"
        assert engine.run(*job.argv(*self.more), watch=job.watch, log=log, stamp="content").code == 0
        job.put_back(files)
        calls = [(event.call, event.role) for event in parse(log)]
        before = calls[: calls.index(("pwrite", "T"))].count((self.call, self.role))
        return Rule(
            action=self.action, call=self.call, role=self.role, nth=before + self.nth, value=self.value
        )


Before = Callable[[Engine, SyncJob, Random], SyncJob]
TERM = Fault(call="pwrite", role="T", nth=2, action=Action.SIGNAL, value=signal.SIGTERM, code=5)
# The writers must not be done before somebody flushes behind them.
FLUSH_BEHIND = Fault(call="fsync", role="T", more=("--bwlimit", "8MiB"))

SCENARIOS: dict[str, tuple[Before, Fault | None]] = {
    "first pass": (nothing, None),
    "first pass to a missing file": (no_target, None),
    "second pass": (an_earlier_pass, None),
    "pass after a killed one": (a_killed_pass, None),
    "limited pass": (a_list_of_what_changed, None),
    "limited pass after a killed one": (a_killed_limited_pass, None),
    "limited pass stopped by SIGTERM": (a_list_of_what_changed, TERM),
    "flush of a limited pass that fails": (a_list_of_what_changed, Fault(call="fsync", role="T")),
    "limited pass, digest file torn": (
        a_list_of_what_changed,
        Fault(call="pwrite", role="D", nth=2, action=Action.KILL_TORN, code=-signal.SIGKILL),
    ),
    "pass stopped by SIGTERM": (an_earlier_pass, TERM),
    "first pass stopped by SIGTERM": (nothing, TERM),
    "flush that fails": (an_earlier_pass, Fault(call="fsync", role="T")),
    "flush behind the writers that fails": (nothing, FLUSH_BEHIND),
    "write that fails": (an_earlier_pass, Fault(call="pwrite", role="T", nth=3)),
    "no room for the digest file": (an_earlier_pass, Fault(call="pwrite", role="D", value=errno.ENOSPC)),
    "digest file torn": (an_earlier_pass, Fault(call="pwrite", role="D", nth=2)),
    "flush of the digest file that fails": (an_earlier_pass, Fault(call="fsync", role="D")),
    "last flush of the digest file that fails": (an_earlier_pass, Fault(call="fsync", role="D", nth=2)),
}


@pytest.fixture
def job(workplace: Path) -> SyncJob:
    return SyncJob.make(workplace, Random(1), size=700 * KIB + 333, offset=32 * KIB, after=3000)


@pytest.mark.parametrize("passes", [12, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_a_crash_leaves_is_told_truly_and_put_right(
    engine: Engine, job: SyncJob, name: str, passes: int
) -> None:
    """All states are looked at; after `passes` of them a whole pass is run, too."""
    before, fault = SCENARIOS[name]
    random = Random(name)
    job = before(engine, job, random)
    recorded = Recorded(engine, job, fault)
    assert recorded.ended.code == (fault.code if fault else 0), recorded.ended
    states = []
    for place, files in recorded.crashes(random):
        assert check_lies(job, files, job.folder / "left.digests") == [], place
        states.append((place, files))
    assert len(states) >= 8
    first, rest = states[: passes // 3], states[passes // 3 :]
    for place, files in (*first, *random.sample(rest, min(passes - len(first), len(rest)))):
        job.put_back({Path(path): content for path, content in files.items()})
        ended = engine.run(*job.argv(), stamp="unmoved")
        assert ended.code == 0, (place, ended)
        assert job.target.read_bytes() == job.expected(), place


@pytest.mark.parametrize("name", [name for name, (_, fault) in SCENARIOS.items() if not fault])
@pytest.mark.parametrize("digests", [True, False])
def test_what_a_pass_calls_done_survives_a_crash(
    engine: Engine, job: SyncJob, name: str, digests: bool
) -> None:
    random = Random(name)
    job = SCENARIOS[name][0](engine, job, random)
    recorded = Recorded(engine, job, digests=digests)
    assert recorded.ended.code == 0, recorded.ended
    expected = job.expected()
    disk = recorded.at_the_end()
    for files in (disk.now(), *disk.after_crash(random)):
        assert files[str(job.target)] == expected
        if digests:
            assert files[str(job.digests)] == job.digests.read_bytes()


def test_the_log_misses_no_write(engine: Engine, job: SyncJob) -> None:
    """What the proofs above rest on: replaying all of the log gives the files as they are."""
    an_earlier_pass(engine, job, Random(2))
    files = Recorded(engine, job).at_the_end().now()
    assert files == {str(path): content for path, content in job.files().items()}
