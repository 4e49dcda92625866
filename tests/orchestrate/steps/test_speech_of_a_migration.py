"""What the commands of `xen2kvm` say and keep: objects that match their schemas, files too, and the log."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from xl_double import GUEST

from orchestrate.commands import schema_files
from orchestrate.job.log import JobLog

XEN2KVM = Path(sys.executable).parent / "xen2kvm"
USAGE, REFUSED = 2, 3


def valid(guest, name: str, *options: str) -> dict[str, Any]:
    """The object that a command prints, held against its schema; its lines on standard error as well."""
    done = guest.step(name, "--json", "--log-json", *options)
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    jsonschema.validate(found, schema_files.made()[f"xen2kvm-{name}"])
    for each in done.stderr.splitlines():
        jsonschema.validate(json.loads(each), schema_files.made()["log-line"])
    assert found["exit_code"] == done.returncode
    assert (found["error"] is None) == (done.returncode == 0)
    return found


def test_a_migration_s_objects_and_files_are_what_their_schemas_say(planned_guest, xl):
    job = planned_guest.folder / "job"
    dry = valid(planned_guest, "sync", "--dry-run")
    assert dry["bytes_written"] == 0
    assert dry["bytes_to_write"] == dry["bytes_changed"] > 0
    assert not planned_guest.target.exists()
    assert valid(planned_guest, "sync")["guest"] == GUEST
    assert valid(planned_guest, "finish")["error"]["guard"] == "not-on-kvm"
    assert valid(planned_guest, "rehearse", "--network=x2knone")["status"] == "usage"
    not_ready = valid(planned_guest, "precopy", "--passes=1", "--max-downtime=0.0001")
    assert (not_ready["status"], not_ready["ready"], not_ready["passes"]) == ("failed", False, 1)
    status = valid(planned_guest, "status")
    assert status["lines"][2] == f"next: {status['next']}"
    done = valid(planned_guest, "cutover")
    assert (done["status"], done["target"]) == ("done", str(planned_guest.target))
    status = valid(planned_guest, "status")
    assert status["situation"] == "down"
    assert status["next"] == f"virsh define {planned_guest.folder}/guest.xml && virsh start {GUEST}"
    assert valid(planned_guest, "rollback", "--discard", "--yes")["started"] is True
    made = schema_files.made()
    for name in ("state", "journal", "job"):
        jsonschema.validate(json.loads((job / f"{name}.json").read_text()), made[name])
    (report,) = job.glob("report-*.json")
    jsonschema.validate(json.loads(report.read_text()), made["report"])
    plan = msgspec.toml.decode(planned_guest.plan.read_text())
    jsonschema.validate(plan, made["plan"])
    log = (job / "log").read_text()
    for program in ("mkswap", "qemu-img", "qemu-storage-daemon", "grub-mkimage", "blkid", "sh"):
        assert re.search(rf" command: this machine: (.*[ /])?{program} ", log), program


def test_the_schemas_in_the_package_are_made_from_these_structs() -> None:
    kept = {path.stem: path.read_text() for path in schema_files.folder().glob("*.json")}
    assert kept == {name: schema_files.as_text(schema) for name, schema in schema_files.made().items()}, (
        "run `make man`"
    )


def test_every_schema_is_one() -> None:
    for schema in schema_files.made().values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_log_has_each_command_line_each_command_and_why_it_failed(planned_guest):
    planned_guest.result("sync")
    with planned_guest.volumes["xvda3"].open("r+b") as volume:
        volume.truncate(64 * 2**20)
    assert planned_guest.step("sync").returncode == REFUSED
    log = planned_guest.folder / "job" / "log"
    text = log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert text.count(f" begin: xen2kvm sync {planned_guest.plan}") == 2
    assert " command: this machine: blkid " in text
    assert "the plan was made for" in text
    assert " traceback: " in text
    assert text.splitlines()[-1].endswith(f"end: exit code {REFUSED}")
    assert all(line[:4].isdigit() and line[23:25] == "Z " for line in text.splitlines())


def test_a_log_is_bounded_and_one_older_is_kept(tmp_path):
    log = JobLog(tmp_path, most_bytes=1000)
    for number in range(100):
        log.write("note", f"{number} " + "x" * 50)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["log", "log.1"]
    assert all(path.stat().st_size < 1200 for path in tmp_path.iterdir())
    assert " note: 99 x" in (tmp_path / "log").read_text()


def test_a_text_with_line_ends_and_colours_makes_no_line_of_another_kind(tmp_path):
    log = JobLog(tmp_path)
    log.write("note", "a\nb\x1b[31m\rerror: all is lost\x85c")
    assert all(" note: " in line for line in (tmp_path / "log").read_text().splitlines())
    assert "\x1b" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_log_that_is_no_file_is_refused_before_anything_is_done(planned_guest, kind):
    job = planned_guest.folder / "job"
    job.mkdir()
    precious = planned_guest.folder / "precious"
    precious.write_text("kept")
    {
        "link": lambda: (job / "log").symlink_to(precious),
        "fifo": lambda: os.mkfifo(job / "log"),
        "folder": (job / "log").mkdir,
    }[kind]()
    done = planned_guest.step("sync")
    assert done.returncode == USAGE
    assert "log" in done.stderr
    assert precious.read_text() == "kept"
    assert not planned_guest.target.exists()


@pytest.mark.parametrize(
    ("command", "name", "known"),
    [
        ("sync", "not-rehearsed", "mounted"),
        ("precopy", "nonsense", "mounted"),
        ("cutover", "nonsense", "not-rehearsed"),
        ("plan", "mounted", "unknown-filesystem"),
    ],
)
def test_a_guard_that_the_command_does_not_know_is_refused_at_once(small_guest, command, name, known):
    words = (small_guest.plan,) if command != "plan" else (small_guest.config, "--disk=x", "-o=y")
    done = small_guest.xen2kvm(command, *words, f"--override={name}")
    assert done.returncode == USAGE
    assert f"--override {name}" in done.stderr
    assert known in done.stderr


def test_a_plan_is_printed_and_tried_without_being_written(small_guest):
    printed = small_guest.xen2kvm(
        "plan",
        small_guest.config,
        f"--disk={small_guest.target}",
        "-o-",
        *(f"--volume=/dev/vg0/{name}={path}" for name, path in small_guest.volumes.items()),
    )
    assert printed.returncode == 0, printed.stderr
    assert not (small_guest.folder / "-").exists()
    tried = small_guest.make_plan("--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert not small_guest.plan.exists()
    assert small_guest.make_plan().returncode == 0
    assert small_guest.plan.read_text() == printed.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("sync", "-"),
        ("status", "-"),
        ("plan", "-", "--disk=x", "-o=y"),
        ("plan", "x.cfg", "--disk=-", "-o=y"),
        ("cutover", "x.toml", "--xml=-"),
        ("sync", "x.toml", "--job-dir=-"),
    ],
    ids=" ".join,
)
def test_a_dash_where_no_stream_can_be_is_refused(tmp_path, words):
    argv = [str(XEN2KVM), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == USAGE
    assert "is `-`" in done.stderr
    assert list(tmp_path.iterdir()) == []
