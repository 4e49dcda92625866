"""Commands that take their time say what they are at."""

import json

from played_migration import Migration, quiet

from blocksync import locations
from orchestrate.copying import passes
from orchestrate.copying.passes import SyncRequest
from orchestrate.steps import plan


def test_a_pass_says_what_it_is_at(tmp_path):
    migration, told = Migration(tmp_path), []

    def tell(text, of=None):
        told.append(text)

    for _ in range(2):
        passes.run(migration.job, migration.source, SyncRequest(), quiet, tell)
    assert told == [
        "looking at the volumes",
        "making 2 snapshots",
        "listing what changed",
        "copying",
        "looking at the volumes",
        "making 2 snapshots",
        "listing what changed",
        "copying",
        "dropping the earlier snapshots",
    ]


def test_a_limit_stands_in_the_record_of_its_pass(tmp_path):
    migration = Migration(tmp_path)
    migration.sync(bytes_per_second=100 * 2**20)
    migration.sync()
    assert [record.limit for record in migration.job.state().records] == [100 * 2**20, None]


def test_a_plan_says_which_volume_it_looks_at_and_that_it_reads(small_guest):
    told = []

    def tell(text, of=None):
        told.append(text)

    mapped = {f"/dev/vg0/{name}": path for name, path in small_guest.volumes.items()}
    config = locations.parse(str(small_guest.config))
    plan.run(plan.PlanRequest(config=config, disk=small_guest.target, mapped=mapped), tell)
    assert told[0] == f"reading {small_guest.config}"
    assert told[1:4] == [
        f"looking at volume {number} of 3: /dev/vg0/{name}"
        for number, name in enumerate(small_guest.volumes, 1)
    ]
    assert told[4] == "reading the guest's files (1)"
    assert told[-1] == f"reading the guest's files ({len(told) - 4})"


def test_a_program_sees_the_steps_of_a_plan(small_guest):
    done = small_guest.make_plan("--log-json")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(step["step"], step["status"]) for step in steps if step["status"] != "running"] == [
        ("plan", "begun"),
        ("plan", "done"),
    ]
    assert steps[-1]["seconds"] > 0
