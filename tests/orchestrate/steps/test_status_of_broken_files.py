"""`xen2kvm status` survives every file that it may find in a job's folder, and says which one is broken."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrate.handover.standing import Situation
from orchestrate.steps import status

XEN2KVM = Path(sys.executable).parent / "xen2kvm"
STATE = {"format": 1, "target": "/dev/vg1/web1", "passes": 1}
JOURNAL = {"format": 1, "guest": "web1", "target": "/dev/vg1/web1"}
JOB = {"format": 1, "plan": "/root/web1.toml"}
GOOD = {"state.json": STATE, "journal.json": JOURNAL, "job.json": JOB}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    job = tmp_path / "web1"
    job.mkdir()
    for name, content in GOOD.items():
        (job / name).write_text(json.dumps(content))
    return job


def a_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "blank": lambda path: path.write_bytes(b"\n\n"),
    "torn": lambda path: path.write_bytes(json.dumps(GOOD[path.name]).encode()[:20]),
    "not UTF-8": lambda path: path.write_bytes(b'{"format": 1, "target": "\xff\xfe"}'),
    "not UTF-8 in a key": lambda path: path.write_bytes(b'{"format": 1, "\xff": 1}'),
    "zeros": lambda path: path.write_bytes(bytes(512)),
    "newer": lambda path: path.write_text(json.dumps({**GOOD[path.name], "format": 99, "new": []})),
    "another type": lambda path: path.write_text("[1]"),
    "null": lambda path: path.write_text("null"),
    "a key too many": lambda path: path.write_text(json.dumps({**GOOD[path.name], "x": 1})),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a huge number": lambda path: path.write_text(json.dumps({**GOOD[path.name], "format": 10**30})),
    "a folder": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a link": a_link,
    "a loop of links": lambda path: path.symlink_to(path.name),
    "a device": lambda path: os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5)),
    "huge": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", GOOD)
def test_a_broken_file_of_a_job_is_named_and_stops_nothing(folder: Path, name: str, damage: str) -> None:
    (folder / name).unlink()
    DAMAGE[damage](folder / name)
    found = status.of_folder(folder)
    assert [broken.file for broken in found.found.broken if broken.file == name] == [name]
    assert len(found.standing.lines) == 3
    if name == "journal.json":
        assert found.standing.situation is Situation.UNKNOWN
        assert "journal.json" in found.standing.lines[0]
        assert found.standing.command is None
    if name == "state.json":
        assert "state.json" in found.standing.lines[1]
        assert found.standing.command is None


@pytest.mark.parametrize(
    "content", [b"not a process\n", b"\xff\xfe", b"-1", b"1" * 40, "\u0663\u0664".encode()]
)
def test_a_lock_that_names_no_process_is_said(folder: Path, content: bytes) -> None:
    (folder / "lock").write_bytes(content)
    found = status.of_folder(folder)
    assert [broken.file for broken in found.found.broken if broken.file == "lock"] == ["lock"]
    assert "lock" in found.standing.lines[0]


def test_a_lock_that_is_a_fifo_makes_nobody_wait(folder: Path) -> None:
    os.mkfifo(folder / "lock")
    began = time.monotonic()
    assert status.of_folder(folder).found.is_broken("lock") is not None
    assert time.monotonic() - began < 5


def test_a_process_that_holds_the_job_is_named_and_one_that_ended_is_not(folder: Path) -> None:
    (folder / "lock").write_text(f"{os.getpid()}\n")
    assert status.of_folder(folder).found.holder is None
    with (folder / "lock").open():
        holder = status.of_folder(folder).found.holder
    assert holder is not None
    assert holder.pid == os.getpid()


@pytest.mark.parametrize("damage", ["missing", "empty", "a folder", "a FIFO", "not UTF-8", "zeros"])
def test_a_plan_that_cannot_be_read_is_named(folder: Path, tmp_path: Path, damage: str) -> None:
    plan = tmp_path / "plan.toml"
    (folder / "job.json").write_text(json.dumps({**JOB, "plan": str(plan)}))
    if damage != "missing":
        DAMAGE[damage](plan)
    found = status.of_folder(folder)
    assert [broken.file for broken in found.found.broken] == ["plan"]
    assert found.standing.lines[2].startswith("next: no command before plan can be read")
    named = status.of_plan(plan, folder)
    assert [broken.file for broken in named.found.broken] == ["plan"]


def test_a_plan_that_is_a_link_is_read(planned_guest) -> None:
    planned_guest.result("sync")
    link = planned_guest.folder / "link.toml"
    link.symlink_to(planned_guest.plan)
    assert status.of_plan(link, planned_guest.folder / "job").found.broken == ()


def test_jobs_are_listed_the_most_urgent_first_within_80_columns(tmp_path: Path) -> None:
    stopped = {**JOURNAL, "stopped": 1.0, "steps": [{"step": "stop", "status": "done", "begun": "x"}]}
    for name, files in {
        "calm": {"state.json": STATE},
        "down": {"state.json": STATE, "journal.json": stopped},
        "a-guest-with-a-very-long-name.example.com": {"state.json": STATE},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(json.dumps(content))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "giving-back").write_text("")
    (tmp_path / "torn" / "lock").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("")
    (tmp_path / "no job").mkdir()
    (tmp_path / "a file").write_text("")
    os.mkfifo(tmp_path / "a FIFO")
    done = subprocess.run(
        [XEN2KVM, "status", f"--job-dir={tmp_path}"], capture_output=True, text=True, check=False, timeout=60
    )
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["guest", "where", "it", "is", "next"]
    assert [row.split()[0] for row in rows] == ["torn", "web1", "broken", "a-guest-with-a..", "calm"]
    assert max(len(row) for row in rows) <= 80
    assert done.returncode == 1
    assert "state.json is empty" in done.stderr


def test_the_passes_are_shown_with_v_and_a_cutover_that_is_over_with_vv_alone(folder: Path) -> None:
    steps = [{"step": "check", "status": "done", "begun": "2026-11-28T00:00:00Z", "seconds": 1.0}]
    over = {**JOURNAL, "closed": "rolled-back", "steps": steps}
    (folder / "journal.json").write_text(json.dumps(over))
    (folder / "job.json").unlink()

    def shown(*options: str) -> str:
        argv = [XEN2KVM, "status", f"--job-dir={folder}", *options]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout

    assert len(shown().splitlines()) == 3
    assert "check" not in shown("-v")
    assert "looked at" in shown("-v")
    assert "check: done" in shown("-vv")
