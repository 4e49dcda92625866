"""Passes until the last one would be short, or the reason why none will be; and where a migration stands."""

import fcntl
import json
import os

import pytest
from played_migration import Migration, quiet

from blocksync.errors import ExitCode
from orchestrate.copying import live
from orchestrate.copying.live import PrecopyRequest
from orchestrate.copying.passes import SyncRequest
from orchestrate.steps import status


def run(migration, **options):
    told = []
    wanted = {"max_downtime": 60.0, "passes": 10, "sync": SyncRequest(), **options}
    report = live.run(migration.job, migration.source, PrecopyRequest(**wanted), quiet, told.append)
    return report, told


def test_passes_go_on_until_the_last_one_would_be_short_and_the_moment_is_proven(tmp_path):
    migration = Migration(tmp_path)
    report, told = run(migration)
    assert report.ready
    assert report.predicted is not None
    assert report.predicted < 60
    assert set(report.proofs) == {"root", "srv"}
    assert len(told) == report.passes
    state = migration.job.state()
    assert state.proven == state.moment == report.passes
    migration.assert_equals_its_moment()


def test_without_snapshots_nothing_is_proven_before_the_guest_stops(tmp_path):
    migration = Migration(tmp_path)
    report, _ = run(migration, sync=SyncRequest(snapshots=False))
    assert report.ready
    assert report.proofs == {}


def test_passes_that_do_not_come_down_end_with_the_reason(tmp_path):
    migration = Migration(tmp_path)
    report, told = run(migration, max_downtime=1e-6)
    assert not report.ready
    assert "moved" in report.why or "changes" in report.why
    assert len(told) == live.FEWEST


def test_a_second_run_goes_on_from_the_first(tmp_path):
    migration = Migration(tmp_path)
    run(migration)
    before = migration.job.state().passes
    report, told = run(migration)
    assert report.ready
    assert all(each.report.total("bytes_total") < 2 * 2**20 for each in told)
    assert migration.job.state().passes == before + report.passes


def test_status_tells_of_passes_moment_and_who_holds_the_job(tmp_path):
    migration = Migration(tmp_path)
    run(migration)
    lock = migration.job.folder / "lock"
    lock.write_text(f"{os.getpid()}\n")
    before = sorted(migration.job.folder.iterdir())
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = status.of_folder(migration.job.folder)
    assert told.found.holder is not None
    assert told.found.holder.pid == os.getpid()
    assert told.found.state == migration.job.state()
    assert told.predicted is not None
    assert status.of_folder(migration.job.folder).found.holder is None
    assert sorted(migration.job.folder.iterdir()) == before


@pytest.mark.parametrize("limit", ["0", "10 s", "-1", "1d", "ten"])
def test_a_time_that_is_none_is_a_mistake_of_usage(planned_guest, limit):
    assert planned_guest.step("precopy", "--max-downtime", limit).returncode == ExitCode.USAGE


def test_the_commands_agree_with_each_other(planned_guest):
    done = planned_guest.result("precopy", "--max-downtime", "5m")
    assert done["ready"]
    told = planned_guest.result("status")
    assert told["passes"] == len(told["records"]) == done["passes"]
    assert told["holder"] is None
    words = planned_guest.step("status")
    assert "passes" in words.stdout
    hopeless = planned_guest.step("precopy", "--max-downtime", "0.0001s", "--json")
    assert hopeless.returncode == ExitCode.FAILED
    assert not json.loads(hopeless.stdout)["ready"]
    assert "hint" in hopeless.stderr
