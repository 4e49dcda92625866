"""Passes from moments: never too little, whenever whoever drives them is killed, and nothing left behind."""

import threading
from contextlib import suppress
from dataclasses import replace as replace_pass
from pathlib import Path

import pytest
from msgspec.structs import replace
from played_migration import MIB, NAMES, Migration, quiet
from played_xen import CHUNK, Killed

from blocksync.errors import Differences, Failed, Interrupted, Refused
from blocksync.extents import Extents
from blocksync.hosts.host import HostLost
from blocksync.progress import Progress
from orchestrate.copying import passes, snapshot_watch
from orchestrate.copying.snapshot_sets import Quiesce, job_name
from orchestrate.job import send_back_mark
from orchestrate.job.folder import Phase


@pytest.fixture
def migration(tmp_path: Path) -> Migration:
    return Migration(tmp_path)


def test_each_pass_is_one_moment_and_looks_only_at_what_changed_since_the_last(migration):
    first = migration.sync()
    migration.assert_equals_its_moment()
    assert (first.total("bytes_total"), first.moment) == (2 * MIB, 1)
    for number in (2, 3, 4):
        before = {each.origin: len(each.changed) for each in migration.host.snapshots.values()}
        migration.guest_writes()
        report = migration.sync()
        migration.assert_equals_its_moment()
        assert (report.moment, report.notes) == (number, ())
        assert sum(before.values()) * CHUNK <= report.total("bytes_total") < MIB


def test_bytes_never_come_from_a_volume_that_is_written(migration):
    for _ in range(2):
        migration.sync()
    sources = {request.source.name for request in migration.source.asked}
    assert not sources & set(NAMES)


def test_the_last_pass_reads_candidates_alone_and_what_it_wrote_is_read_back(migration):
    migration.sync()
    assert set(passes.prove_moment(migration.job, migration.source, quiet)) == set(NAMES)
    migration.sync()
    state = migration.job.state()
    assert state.proven == state.moment == 2
    migration.guest_writes()
    dirty = sum(len(each.changed) for each in migration.host.snapshots.values()) * CHUNK
    steps = migration.host.steps
    report = migration.last_pass()
    # Two commands and two halves of a copy for each volume.
    assert migration.host.steps - steps <= 8
    migration.assert_equals_the_volumes()
    assert report.total("bytes_read") <= dirty
    proofs = passes.prove_last(migration.job, migration.source, report, quiet)
    assert set(proofs) == set(NAMES)
    passes.drop_moments(migration.job, migration.source)
    assert not migration.host.snapshots
    assert migration.job.state().moment is None


def test_a_block_that_the_last_pass_did_not_bring_over_is_found(migration):
    migration.sync()
    passes.prove_moment(migration.job, migration.source, quiet)
    migration.host.write("srv", 5 * CHUNK, b"new")
    report = migration.last_pass()
    with migration.job.plan.target.open("r+b") as target:
        target.seek(3 * MIB + 5 * CHUNK)
        target.write(b"old")
    with pytest.raises(Differences):
        passes.prove_last(migration.job, migration.source, report, quiet)


def test_without_a_proven_moment_everything_is_compared_at_the_end(migration):
    migration.sync()
    report = migration.last_pass()
    with migration.job.plan.target.open("r+b") as target:
        target.seek(3 * MIB + 9 * CHUNK)
        target.write(b"somebody")
    with pytest.raises(Differences):
        passes.prove_last(migration.job, migration.source, report, quiet)


@pytest.mark.parametrize("trouble", ["full", "reboot", "gone", "another"])
def test_a_list_that_is_lost_means_everything_and_says_so(migration, trouble):
    migration.sync()
    lost = next(each for each in migration.host.snapshots.values() if each.origin == "srv")
    if trouble == "full":
        lost.lost = True
    elif trouble == "reboot":
        migration.host.reboot()
    elif trouble == "gone":
        del migration.host.snapshots[lost.name]
    else:
        # The same name, but made later than the moment that the state speaks of.
        migration.guest_writes()
        lost.changed, lost.uuid = set(), "snap-of-somebody-else"
    migration.guest_writes()
    report = migration.sync()
    migration.assert_equals_its_moment()
    assert "everything was looked at" in report.notes[0]
    assert report.total("bytes_total") >= MIB


def test_a_snapshot_that_overflows_while_it_is_read_fails_the_pass_and_not_the_job(migration):
    migration.sync()
    writes = migration.source._guest_writes

    def overflow() -> None:
        writes()
        for each in migration.host.snapshots.values():
            each.lost = True

    migration.source._guest_writes = overflow
    with pytest.raises(Failed, match="more during the pass than its snapshot can hold"):
        migration.sync()
    migration.source._guest_writes = writes
    migration.sync()
    migration.assert_equals_its_moment()


def test_a_snapshot_that_overflows_is_seen_while_a_pass_shows_no_progress(migration, monkeypatch):
    migration.sync()
    monkeypatch.setattr(snapshot_watch, "EVERY_SECONDS", 0.02)
    seen = threading.Event()
    look = snapshot_watch.SnapshotWatch.look

    def looking(watch: snapshot_watch.SnapshotWatch) -> None:
        look(watch)
        seen.set()

    def slow(request, progress):
        for each in migration.host.snapshots.values():
            each.lost = True
        seen.clear()
        # Nothing is told to the display until the watch has looked by itself.
        assert seen.wait(10)
        progress(
            Progress(
                phase="copy",
                bytes_done=0,
                bytes_looked_at=0,
                bytes_total=1,
                bytes_changed=0,
                bytes_written=0,
                bytes_read=0,
                bytes_moved=0,
                seconds=0.0,
            )
        )
        raise AssertionError("the pass went on")

    monkeypatch.setattr(snapshot_watch.SnapshotWatch, "look", looking)
    migration.source.copy = slow
    with pytest.raises(Failed, match="more during the pass than its snapshot can hold"):
        migration.sync()


@pytest.mark.parametrize("trouble", ["no room", "no lvm", "not wanted"])
def test_without_snapshots_a_pass_reads_the_volumes_and_says_why(migration, trouble):
    migration.host.free = 0 if trouble == "no room" else migration.host.free
    migration.host.no_lvm = trouble == "no lvm"
    migration.writing = False
    report = migration.sync(snapshots=trouble != "not wanted")
    migration.assert_equals_the_volumes()
    assert bool(report.notes) == (trouble != "not wanted")
    assert report.moment is None
    assert not migration.host.snapshots


def test_a_moment_is_still_one_after_a_pass_without_snapshots(migration):
    migration.sync()
    migration.guest_writes()
    migration.sync(snapshots=False)
    migration.guest_writes()
    report = migration.last_pass()
    migration.assert_equals_the_volumes()
    assert report.total("bytes_total") < 2 * MIB


def test_what_was_written_to_the_target_by_others_is_found_by_the_next_pass(migration):
    migration.sync()
    with migration.job.plan.target.open("r+b") as target:
        target.seek(2 * MIB + 10 * CHUNK)
        target.write(b"somebody else")
    migration.sync()
    migration.assert_equals_its_moment()


def test_an_interrupted_pass_does_not_hide_what_others_wrote(migration):
    migration.sync()
    with migration.job.plan.target.open("r+b") as target:
        target.seek(2 * MIB + 10 * CHUNK)
        target.write(b"somebody else")
    copy = migration.source.copy

    def stopped(request, progress):
        copy(replace_pass(request, only=Extents.of([(0, CHUNK)])), progress)
        raise Interrupted(request.target, "stopped")

    migration.source.copy = stopped
    with pytest.raises(Interrupted):
        migration.sync()
    migration.source.copy = copy
    migration.sync()
    migration.assert_equals_its_moment()


def test_a_target_that_was_a_guest_s_disk_is_compared_as_a_whole(migration):
    migration.sync()

    migration.job.remember(replace(migration.job.state(), phase=Phase.HANDED_OVER))
    migration.job.plan.target.write_bytes(migration.job.plan.target.read_bytes()[: 3 * MIB] + bytes(5 * MIB))
    report = migration.sync(again=True, overrides=frozenset())
    migration.assert_equals_its_moment()
    assert report.total("bytes_total") == 2 * MIB


def test_the_guest_is_held_by_the_operator_s_own_commands(tmp_path):
    migration = Migration(tmp_path, ("root",))
    migration.sync(quiesce=Quiesce("fsfreeze -f /", "fsfreeze -u /"))
    migration.assert_equals_its_moment()


STEPS = 26
at_any_step = pytest.mark.parametrize(
    ("at", "after"), [(at, after) for at in range(STEPS) for after in (False, True)]
)


@at_any_step
def test_killed_at_any_step_the_next_pass_loses_nothing(tmp_path, at, after):
    migration = Migration(tmp_path)
    loses_nothing(migration, at, after=after, broken=Killed)


@at_any_step
def test_with_the_link_cut_at_any_step_the_next_pass_loses_nothing(tmp_path, at, after):
    migration = Migration(tmp_path)
    migration.host.cut = True
    loses_nothing(migration, at, after=after, broken=HostLost)


def loses_nothing(migration, at, *, after, broken):
    """A second pass breaks at a step of the host's, or after it; what follows is as if it had not begun."""
    migration.sync()
    migration.guest_writes()
    migration.host.steps, migration.host.kill_at, migration.host.kill_after = 0, at, after
    with suppress(broken):
        migration.sync()
    migration.revive()
    migration.guest_writes()
    if at % 2:
        migration.sync()
        migration.assert_equals_its_moment()
    migration.last_pass()
    migration.assert_equals_the_volumes()
    passes.drop_moments(migration.job, migration.source)
    assert not migration.host.snapshots


@pytest.mark.parametrize("at", range(4))
def test_snapshots_that_a_cut_link_left_are_told_and_dropped_by_the_next_run(tmp_path, at):
    migration = Migration(tmp_path)
    migration.sync()
    migration.host.steps, migration.host.kill_at, migration.host.cut = 0, at, True
    # It never says that it is done while one stands.
    with pytest.raises(HostLost):
        passes.drop_moments(migration.job, migration.source)
    assert migration.host.snapshots
    migration.revive()
    passes.drop_moments(migration.job, migration.source)
    assert not migration.host.snapshots


def test_a_pass_has_no_more_steps_than_are_killed(migration):
    migration.sync()
    migration.revive()
    migration.sync()
    assert migration.host.steps <= STEPS


def test_the_names_of_two_guests_never_become_the_same():
    names = ["web1", "web 1", "web_1", "web:1", "x" * 60, "x" * 61, "-x", "ü"]
    assert len({job_name(name) for name in names}) == len(names)
    assert job_name("web1") == "web1"


def test_half_written_volumes_are_never_copied_over_the_target(migration):
    migration.sync()
    before = migration.job.plan.target.read_bytes()
    send_back_mark.mark(migration.job)
    migration.guest_writes()
    for one_more in (lambda: migration.sync(again=True), migration.last_pass):
        with pytest.raises(Refused, match="half written"):
            one_more()
    assert migration.job.plan.target.read_bytes() == before
