"""Whatever happened before, a pass that says it is done has made the target's range equal to the source, and
changed not one byte outside it. Hypothesis makes up the histories: guests that write, passes with and without
digest files, stopped and killed, digest files lost, torn, swapped and put back, strangers on the target.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import ClassVar

import hypothesis.strategies as st
import pytest
import reference
from forked import Action, Ended, Engine, Rule
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sync_job import SyncJob, flip, rewrite

from blocksync.digests.digest_file import HEADER_SIZE
from blocksync.extents import Extents

LARGEST = 400_000
SECTOR = 512
# The first bits of a digest file, which say what it is.
OWNER = 64

# Times of files are as coarse as the kernel's tick: a stranger's write is told from ours from then on.
TICK = 0.012

shares = st.floats(0, 1, exclude_max=True)
sizes = st.one_of(
    st.integers(0, 5000), st.integers(200_000, LARGEST), st.sampled_from([4096, 65536, 131072, 262144])
)
lengths = st.sampled_from([1, 511, 512, 4096, 20_000, 131_072])
block_sizes = st.sampled_from([4096, 16384, 65536, 131072])
seeds = st.integers(0, 2**32)
around = st.tuples(st.booleans(), st.booleans())


class Histories(RuleBasedStateMachine):
    """One source, one target, one digest file. `workplace` is empty and ours."""

    engine: ClassVar[Engine]
    workplace: ClassVar[Path]

    @initialize(
        seed=seeds,
        size=sizes,
        sectors=st.integers(0, 300),
        after=st.integers(0, 9000),
        block_size=block_sizes,
    )
    def begin(self, seed: int, size: int, sectors: int, after: int, block_size: int) -> None:
        self.folder = self.workplace / "job"
        shutil.rmtree(self.folder, ignore_errors=True)
        random = Random(seed)
        self.job = SyncJob.make(
            self.folder, random, size=size, offset=sectors * SECTOR, after=after, block_size=block_size
        )
        self.hash = "xxh3"

    def teardown(self) -> None:
        shutil.rmtree(self.workplace / "job", ignore_errors=True)

    @rule(at=shares, length=lengths, seed=seeds, zeros=st.booleans())
    def the_guest_writes(self, at: float, length: int, seed: int, zeros: bool) -> None:
        data = bytearray(self.job.source.read_bytes())
        self._overwrite(data, at, length, seed, zeros)
        rewrite(self.job.source, data)

    @rule()
    def a_pass(self) -> None:
        self._pass(digests=True)

    @rule(at=shares, length=lengths, seed=seeds)
    def the_guest_writes_and_a_pass_follows(self, at: float, length: int, seed: int) -> None:
        self.the_guest_writes(at=at, length=length, seed=seed, zeros=False)
        self._pass(digests=True)

    @rule()
    def a_pass_without_the_digest_file(self) -> None:
        self._pass(digests=False)

    @rule(digests=st.booleans())
    def a_pass_without_comparing(self, digests: bool) -> None:
        ended = self._run("--no-compare", digests=digests)
        assert ended.code == 0, ended
        assert self._held() == self.job.expected()

    @rule(digests=st.booleans(), pieces=st.lists(st.tuples(shares, lengths), max_size=4))
    def a_pass_over_some_extents(self, digests: bool, pieces: list[tuple[float, int]]) -> None:
        """Whole blocks that the extents touch become equal; the others stay as they were."""
        size, block = self.job.size, self.job.block_size
        extents = Extents.of([(int(at * size), length) for at, length in pieces if size])
        listed = self.folder / "extents"
        listed.write_text(extents.to_text())
        expected = bytearray(self._held() or self._hole())
        source = self.job.source.read_bytes()
        for offset, length in extents.aligned(block, size).pairs():
            start = self.job.offset + offset
            expected[start : start + length] = source[offset : offset + length]
        ended = self._run("--only", listed, digests=digests)
        assert ended.code == 0, ended
        assert self._held() == bytes(expected)
        assert not digests or self.job.lies(self._held()) == []

    @rule(digests=st.booleans())
    def a_dry_run(self, digests: bool) -> None:
        before = self.job.files()
        ended = self._run("--dry-run", digests=digests)
        assert ended.code == 0, ended
        assert self.job.files() == before
        assert ended.report["bytes_changed"] == self._oracle(self._held() or self._hole()).bytes_changed

    @rule(
        digests=st.booleans(), nth=st.integers(1, 6), number=st.sampled_from([signal.SIGTERM, signal.SIGINT])
    )
    def a_pass_that_is_told_to_stop(self, digests: bool, nth: int, number: signal.Signals) -> None:
        before = self._held()
        asked = Rule(action=Action.SIGNAL, call="pwrite", role="T", nth=nth, value=number)
        ended = self._run(digests=digests, rule=asked)
        if ended.code == 0:
            self._check_done(ended, before)
        else:
            assert ended.code == 5, ended
            assert "go on with: " in ended.err
            self._check_outside()
            assert not digests or self.job.lies(self._held()) == []

    @rule(digests=st.booleans(), nth=st.integers(1, 70), action=st.sampled_from(list(Action)[2:5]))
    def a_pass_that_is_killed(self, digests: bool, nth: int, action: Action) -> None:
        before = self._held()
        ended = self._run(digests=digests, rule=Rule(action=action, nth=nth))
        if ended.code == 0:
            self._check_done(ended, before)
        else:
            assert ended.code == -signal.SIGKILL, ended
            self._check_outside()

    @rule(seed=seeds, nth=st.integers(1, 70), action=st.sampled_from(list(Action)[2:5]))
    def a_limited_pass_is_killed_and_goes_on(self, seed: int, nth: int, action: Action) -> None:
        """What changed since a pass is known; the same extents again make the range equal."""
        self._pass(digests=True)
        if self.job.size == 0:
            return
        whole = self.job
        self.job = whole.dirtied(Random(seed), 3)
        ended = self._run(digests=True, rule=Rule(action=action, nth=nth))
        assert ended.code in (0, -signal.SIGKILL), ended
        self._check_outside()
        assert self.job.lies(self._held()) == []
        assert self._run(digests=True).code == 0
        assert self._held() == self.job.expected()
        assert self.job.lies(self._held()) == []
        self.job = whole

    @rule(around=around, at=shares, length=lengths, seed=seeds)
    def a_stranger_writes_to_the_target(
        self, around: tuple[bool, bool], at: float, length: int, seed: int
    ) -> None:
        with self._passes(*around):
            if (held := self._held()) is not None:
                time.sleep(TICK)
                data = bytearray(held)
                self._overwrite(data, at, length, seed, zeros=False)
                rewrite(self.job.target, data)
                self.job = replace(self.job, surround=self.job.outside(bytes(data)))

    @rule(around=around)
    def the_target_is_lost(self, around: tuple[bool, bool]) -> None:
        with self._passes(*around):
            self.job.target.unlink(missing_ok=True)
            self.job = replace(self.job, surround=(bytes(self.job.offset), b""))

    @rule(block_size=block_sizes, name=st.sampled_from(["xxh3", "blake3"]))
    def other_options_are_chosen(self, block_size: int, name: str) -> None:
        self.job = replace(self.job, block_size=block_size)
        self.hash = name

    @rule()
    def the_digest_file_is_lost(self) -> None:
        self.job.digests.unlink(missing_ok=True)

    @rule(around=around, keep=shares)
    def the_digest_file_is_torn(self, around: tuple[bool, bool], keep: float) -> None:
        with self._passes(*around):
            if self.job.digests.exists():
                # What is shorter than a header is refused, which has tests elsewhere.
                length = int(keep * self.job.digests.stat().st_size)
                os.truncate(self.job.digests, max(HEADER_SIZE, length))

    @rule(around=around, at=shares)
    def a_bit_of_the_digest_file_flips(self, around: tuple[bool, bool], at: float) -> None:
        with self._passes(*around):
            bits = 8 * (self.job.digests.stat().st_size if self.job.digests.exists() else 0)
            if bits > OWNER:
                # What says whose file it is stays: without it the file is refused, which has tests elsewhere.
                flip(self.job.digests, [OWNER + int(at * (bits - OWNER))])

    @rule(at=shares, length=lengths, seed=seeds)
    def source_and_digest_file_are_put_back_from_a_backup(self, at: float, length: int, seed: int) -> None:
        """The target is not: it holds what the guest wrote since the backup."""
        self._pass(digests=True)
        digests, source = self.job.digests.read_bytes(), self.job.source.read_bytes()
        time.sleep(TICK)
        self.the_guest_writes(at=at, length=length, seed=seed, zeros=False)
        self._pass(digests=True)
        self.job.digests.write_bytes(digests)
        rewrite(self.job.source, source)
        self._pass(digests=True)

    @rule(around=around, seed=seeds)
    def the_digest_file_is_swapped_for_another_jobs(self, around: tuple[bool, bool], seed: int) -> None:
        """Of the same size, offset and block size; only the volumes differ."""
        other = self.workplace / "other"
        shutil.rmtree(other, ignore_errors=True)
        with self._passes(*around):
            job = self.job
            theirs = SyncJob.make(
                other, Random(seed), size=job.size, offset=job.offset, block_size=job.block_size
            )
            assert self.engine.run(*theirs.argv("--hash", self.hash)).code == 0
            shutil.copyfile(theirs.digests, job.digests)

    @contextmanager
    def _passes(self, before: bool, after: bool) -> Iterator[None]:
        """What happens between two passes, or after one, or before one."""
        if before:
            self._pass(digests=True)
        yield
        if after:
            self._pass(digests=True)

    def _pass(self, *, digests: bool) -> None:
        before = self._held()
        self._check_done(self._run(digests=digests), before)
        assert not digests or self.job.lies(self._held()) == []

    def _overwrite(self, data: bytearray, at: float, length: int, seed: int, zeros: bool) -> None:
        start = int(at * len(data))
        length = min(length, len(data) - start)
        data[start : start + length] = bytes(length) if zeros else Random(seed).randbytes(length)

    def _run(self, *more: object, digests: bool, rule: Rule | None = None) -> Ended:
        argv = self.job.argv(*more, "--hash", self.hash, digests=digests)
        return self.engine.run(*argv, watch=self.job.watch, rule=rule)

    def _held(self) -> bytes | None:
        return self.job.target.read_bytes() if self.job.target.exists() else None

    def _hole(self) -> bytes:
        return bytes(self.job.offset + self.job.size)

    def _check_outside(self) -> None:
        if (held := self._held()) is not None:
            assert self.job.outside(held) == self.job.surround

    def _check_done(self, ended: Ended, before: bytes | None) -> None:
        assert ended.code == 0, ended
        assert self._held() == self.job.expected()
        oracle = self._oracle(self._hole() if before is None else before)
        report = ended.report
        assert report["bytes_changed"] == oracle.bytes_changed
        assert report["extents_written"] == len(oracle.extents)
        # Of a block that differs, only the pages that differ need be written.
        assert report["bytes_written"] + report["bytes_zeroed"] <= oracle.bytes_changed

    def _oracle(self, before: bytes) -> reference.Report:
        """What the reference pass makes of it."""
        target = os.memfd_create("target")
        source = os.open(self.job.source, os.O_RDONLY)
        try:
            reference.write_at(target, 0, before)
            report = reference.run(source, target, self.job.size, self.job.offset, self.job.block_size)
            assert reference.read_at(target, 0, len(before)) == self.job.expected()
            return report
        finally:
            os.close(source)
            os.close(target)


def test_a_pass_that_is_told_to_stop_before_its_first_write_ends_as_one_that_was_stopped(
    engine: Engine, workplace: Path
) -> None:
    codes = set()
    for seed in range(12):
        job = SyncJob.make(workplace, Random(seed), size=300_000)
        asked = Rule(action=Action.SIGNAL, call="pread", role="S", value=signal.SIGTERM)
        ended = engine.run(*job.argv(), watch=job.watch, rule=asked)
        codes.add(ended.code)
        assert ended.code in (0, 5), ended
        assert ended.code == 0 or job.lies(job.held()) == []
    assert 5 in codes


COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
CI = settings(max_examples=24, stateful_step_count=16, derandomize=True, **COMMON)
LONG = settings(max_examples=800, stateful_step_count=40, **COMMON)


@pytest.mark.parametrize(
    "budget", [pytest.param(CI, id="ci"), pytest.param(LONG, id="long", marks=pytest.mark.long)]
)
def test_a_pass_that_is_done_made_the_range_equal_and_nothing_else(
    engine: Engine, workplace: Path, budget: settings
) -> None:
    Histories.engine, Histories.workplace = engine, workplace
    run_state_machine_as_test(Histories, settings=budget)
