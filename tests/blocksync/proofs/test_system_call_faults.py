"""An error at any system call of the engine ends in the right bytes or in an exit code and a message that
names the device, and the byte where there is one. Never in a traceback, and never in a digest file that is
ahead of the data: not even after a crash right then, when what was not flushed is lost.
"""

import errno
import signal
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest
from forked import Action, Ended, Engine, Rule
from sync_job import SyncJob, rewrite
from write_log import Disk, Event, parse

KIB = 1024
Attach = Callable[..., Path]

READS = ("EIO", "EINTR", "short")
WRITES = ("EIO", "ENOSPC", "EINTR", "short", "one byte")
FLUSHES = ("EIO", "ENOSPC", "EINTR")

FAULTS = {
    "open": ("EIO", "ENOSPC", "EINTR", "EMFILE"),
    "read": READS,
    "pread": READS,
    "peek": ("EIO", "EAGAIN", "EINTR", "short"),
    "write": WRITES,
    "pwrite": WRITES,
    "fsync": FLUSHES,
    "fdatasync": FLUSHES,
    "close": ("EIO", "ENOSPC", "EINTR"),
    "fallocate": ("EIO", "ENOSPC", "EINTR", "EOPNOTSUPP"),
    "ftruncate": ("EIO", "ENOSPC", "EINTR", "EFBIG"),
    "rename": ("EIO", "ENOSPC"),
    "link": ("EIO", "ENOSPC", "EPERM"),
    "unlink": ("EIO",),
    "ioctl": ("EIO", "EINTR", "ENOTTY"),
    "lseek": ("EIO", "EINVAL"),
    "flock": ("EAGAIN", "EINTR", "ENOLCK"),
    "fadvise": ("EIO",),
}

# Faults that the engine may get over, if the bytes are right in the end: a call that is to be made again or
# goes on where it stopped; advice, holes, closing and looks at the page cache, on which no promise rests.
MAY_SUCCEED = frozenset({"EINTR", "short", "one byte"})
MAY_FAIL_QUIETLY = frozenset({"peek", "close", "lseek", "fadvise", "fallocate", "unlink", "link"})


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command, and the files as they are before it."""

    job: SyncJob
    argv: list[object]
    files: dict[Path, bytes] = field(repr=False)
    code: int = 0


def first_pass(engine: Engine, job: SyncJob) -> Scenario:
    """The target holds something else, and there is no digest file."""
    return Scenario(job, job.argv(), job.files())


def paced(engine: Engine, job: SyncJob) -> Scenario:
    """A pass so slow that what it wrote is flushed while it goes on."""
    return Scenario(job, job.argv("--bwlimit", "4MiB"), job.files())


def without_a_digest_file(engine: Engine, job: SyncJob) -> Scenario:
    """Source and target are compared."""
    return Scenario(job, job.argv(digests=False), job.files())


def to_a_missing_file(engine: Engine, job: SyncJob) -> Scenario:
    """The pass makes the target."""
    job.target.unlink()
    job = replace(job, surround=(bytes(job.offset), b""))
    return Scenario(job, job.argv(), job.files())


def second_pass(engine: Engine, job: SyncJob) -> Scenario:
    """The digest file of an earlier pass is there, and the guest wrote."""
    assert engine.run(*job.argv(), stamp="content").code == 0
    job.dirty(Random(5), 8)
    return Scenario(job, job.argv(), job.files())


def after_a_killed_pass(engine: Engine, job: SyncJob) -> Scenario:
    """The digest file says that a pass was under way."""
    second_pass(engine, job)
    rule = Rule(action=Action.KILL_AFTER, call="pwrite", role="T")
    ended = engine.run(*job.argv(), watch=job.watch, rule=rule, stamp="content")
    assert ended.code == -signal.SIGKILL
    return Scenario(job, job.argv(), job.files())


def limited_pass(engine: Engine, job: SyncJob) -> Scenario:
    """What the guest wrote since is known."""
    assert engine.run(*job.argv(), stamp="content").code == 0
    job = job.dirtied(Random(5), 8)
    return Scenario(job, job.argv(), job.files())


def after_a_killed_limited_pass(engine: Engine, job: SyncJob) -> Scenario:
    """The digest file says which blocks a pass was about that was under way."""
    scenario = limited_pass(engine, job)
    rule = Rule(action=Action.KILL_AFTER, call="pwrite", role="T")
    ended = engine.run(*scenario.argv, watch=job.watch, rule=rule, stamp="content")
    assert ended.code == -signal.SIGKILL
    return replace(scenario, files=job.files())


def dry_run(engine: Engine, job: SyncJob) -> Scenario:
    """Nothing is written, whatever happens."""
    scenario = second_pass(engine, job)
    return replace(scenario, argv=job.argv("--dry-run"))


def verify(engine: Engine, job: SyncJob) -> Scenario:
    """Both sides are read, and are equal."""
    assert engine.run(*job.argv(), stamp="content").code == 0
    words = ["verify", job.source, job.target, "--json"]
    return Scenario(job, [*words, "--target-offset", job.offset, "--size", job.size], job.files())


SCENARIOS = (
    first_pass,
    without_a_digest_file,
    to_a_missing_file,
    second_pass,
    after_a_killed_pass,
    limited_pass,
    after_a_killed_limited_pass,
    dry_run,
    verify,
)
DEVICE_SCENARIOS = (
    second_pass,
    without_a_digest_file,
    after_a_killed_pass,
    after_a_killed_limited_pass,
    verify,
)


class Faults:
    """Runs a scenario with a fault at one call after another, and notes what should not have happened."""

    def __init__(self, engine: Engine, scenario: Scenario) -> None:
        self._engine = engine
        self._scenario = scenario
        self._log = scenario.job.folder / "log"
        scenario.job.put_back(scenario.files)
        ended = self._run(None)
        assert ended.code == scenario.code, ended
        self.calls = [(event.call, event.role) for event in parse(self._log)]
        self._expected = scenario.job.held()
        self.problems: list[str] = []

    def _run(self, rule: Rule | None) -> Ended:
        job = self._scenario.job
        return self._engine.run(
            *self._scenario.argv, watch=job.watch, log=self._log, rule=rule, stamp="content"
        )

    def inject(self, *, each: bool, calls: Container[str] = FAULTS) -> None:
        """Faults at the first, second and last call of each kind on each file, and at the first of them after
        the first write: every fault at `each` of these places, or they take turns.
        """
        turn = 0
        write = ("pwrite", "T")
        start = self.calls.index(write) if write in self.calls else 0
        for (call, role), count in sorted(Counter(self.calls).items()):
            after = self.calls[:start].count((call, role)) + 1
            for nth in sorted({1, min(2, count), min(after, count), count}) if call in calls else ():
                turn += 1
                names = FAULTS[call]
                for name in names if each else (names[turn % len(names)],):
                    self._inject(_rule(name, call, role, nth), name)

    def _inject(self, rule: Rule, name: str) -> None:
        job = self._scenario.job
        job.put_back(self._scenario.files)
        disk = Disk(self._scenario.files, (job.folder, job.digests.parent))
        ended = self._run(rule)
        events = parse(self._log)
        said = ended.err.strip().splitlines()
        said = said[-1:] if "Traceback" in ended.err else said[:1]
        place = f"{name} at {rule.call} {rule.nth} of {rule.role}, exit {ended.code}: {said}"
        self.problems += [f"{problem}; {place}" for problem in self._judged(ended, rule, name, events)]
        self.problems += [f"{problem}; {place}" for problem in self._lies(disk, events)]
        if ended.code:
            again = self._run(None)
            if again.code != self._scenario.code or job.held() != self._expected:
                self.problems.append(f"not put right by running it again, exit {again.code}; {place}")

    def _judged(self, ended: Ended, rule: Rule, name: str, events: list[Event]) -> Iterator[str]:
        job = self._scenario.job
        held = job.held() if job.target.exists() else b""
        if "Traceback" in ended.err:
            yield "a traceback"
        if held and job.outside(held) != job.outside(self._expected):
            yield "bytes outside the range changed"
        if ended.code == self._scenario.code:
            if held != self._expected:
                yield "success with wrong bytes"
            if _must_fail(rule, name) and any(
                event.result < 0 and event.errno == rule.value for event in events
            ):
                yield "success in spite of an error"
        elif ended.code not in (1, 2, 3) or not ended.err.startswith("error: "):
            yield "no error message, or an exit code that is none"
        else:
            yield from _unnamed(ended.err, rule, job, events)

    def _lies(self, disk: Disk, events: list[Event]) -> Iterator[str]:
        job = self._scenario.job
        if job.target != job.backing:
            # A device is no file with a name, and its numbers are not in the log: what it holds is looked at.
            if job.lies(job.held()):
                yield "the digest file lies"
            return
        for event in events:
            disk.carry_out(event)
        for files in (disk.now(), *disk.after_crash(Random(1))):
            if (digests := files.get(str(job.digests))) is not None:
                left = job.folder / "left.digests"
                left.write_bytes(digests)
                if job.lies(files.get(str(job.target), b""), left):
                    yield "the digest file is ahead of the data"
                    return


def _rule(name: str, call: str, role: str, nth: int) -> Rule:
    if name == "short":
        return Rule(action=Action.SHORT, call=call, role=role, nth=nth)
    if name == "one byte":
        return Rule(action=Action.SHORT, call=call, role=role, nth=nth, value=1)
    return Rule(action=Action.FAIL, call=call, role=role, nth=nth, value=getattr(errno, name))


def _must_fail(rule: Rule, name: str) -> bool:
    if name in MAY_SUCCEED or rule.call in MAY_FAIL_QUIETLY:
        return False
    # A history that cannot be read explains nothing, and what is not explained is compared.
    return not (rule.role == "H" and rule.call in ("open", "read"))


def _unnamed(message: str, rule: Rule, job: SyncJob, events: list[Event]) -> Iterator[str]:
    """What a message should name and does not."""
    names = {"S": job.source, "T": job.target, "P": job.folder, "M": job.target, "D": job.digests}
    if str(names.get(rule.role, job.digests.parent)) not in message:
        yield "the message does not name the device"
    if rule.call in ("pread", "pwrite") and rule.role in "ST" and rule.action is Action.FAIL:
        at = next(event.offset for event in events if event.result < 0 and event.errno == rule.value)
        if f" {at}:" not in message:
            yield f"the message does not name byte {at}"


def _job(folder: Path, attach: Callable[[Path], Path] | None = None) -> SyncJob:
    options = {"size": 264 * KIB + 300, "offset": 8 * KIB, "after": 4096 - 300}
    if attach is not None:
        options["attach"] = attach
    job = SyncJob.make(folder, Random(3), **options)
    data = bytearray(job.source.read_bytes())
    # What becomes a hole.
    data[128 * KIB : 256 * KIB] = bytes(128 * KIB)
    rewrite(job.source, data)
    return job


EACH = [False, pytest.param(True, marks=pytest.mark.long)]
Prepare = Callable[[Engine, SyncJob], Scenario]


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_error_at_any_call_on_files_is_told_or_got_over(
    engine: Engine, workplace: Path, scenario: Prepare, each: bool
) -> None:
    faults = Faults(engine, scenario(engine, _job(workplace)))
    faults.inject(each=each)
    assert not faults.problems, "\n".join(faults.problems)


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("scenario", DEVICE_SCENARIOS)
def test_an_error_at_any_call_on_a_block_device_is_told_or_got_over(
    engine: Engine, workplace: Path, loop: Attach, scenario: Prepare, each: bool
) -> None:
    faults = Faults(engine, scenario(engine, _job(workplace, loop)))
    faults.inject(each=each)
    assert not faults.problems, "\n".join(faults.problems)


def test_an_error_while_flushing_behind_the_writers_is_told(engine: Engine, workplace: Path) -> None:
    faults = Faults(engine, paced(engine, _job(workplace)))
    writes = [number for number, call in enumerate(faults.calls) if call == ("pwrite", "T")]
    assert ("fsync", "T") in faults.calls[writes[0] : writes[-1]]
    faults.inject(each=False, calls={"fsync"})
    assert not faults.problems, "\n".join(faults.problems)


def test_every_kind_of_call_that_the_engine_makes_has_its_faults(
    engine: Engine, workplace: Path, loop: Attach
) -> None:
    made = set()
    for scenario in (*SCENARIOS, paced):
        folder = workplace / scenario.__name__
        folder.mkdir()
        made |= {call for call, _ in Faults(engine, scenario(engine, _job(folder))).calls}
    folder = workplace / "device"
    folder.mkdir()
    made |= {call for call, _ in Faults(engine, second_pass(engine, _job(folder, loop))).calls}
    assert made <= set(FAULTS)
    named = {
        "open",
        "pread",
        "pwrite",
        "fsync",
        "close",
        "fallocate",
        "ftruncate",
        "rename",
    }
    assert named | {"ioctl"} <= made
