"""What a journal promises to the next command, whatever ended the one before."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blocksync.errors import Failed, Refused
from orchestrate.job import journal
from orchestrate.job.journal import Closed, CutoverStatus, MovedLink, Owner
from orchestrate.job.stopwatch import Stopwatch

KILLED = """
import os, signal, sys
from pathlib import Path
from orchestrate.job import journal
from orchestrate.job.stopwatch import Stopwatch
opened = journal.opened(Path(sys.argv[1]), "web1", Path("/dev/vg1/web1"))
watch = opened.watched(Stopwatch())
with watch.step("stop"):
    opened.note(stopped=1700000000.5)
with watch.step("last pass"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def steps(folder: Path) -> list[tuple[str, CutoverStatus]]:
    content = journal.read(folder)
    assert content is not None
    return [(entry.step, entry.status) for entry in content.steps]


def test_a_killed_step_stands_as_begun_and_what_was_noted_before_it_is_kept(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert steps(tmp_path) == [("stop", CutoverStatus.DONE), ("last pass", CutoverStatus.BEGUN)]
    content = journal.read(tmp_path)
    assert content is not None
    assert (content.stopped, content.owner, content.closed) == (1700000000.5, Owner.XEN, None)


def test_a_failed_step_keeps_its_cause(tmp_path: Path) -> None:
    opened = journal.opened(tmp_path, "web1", Path("/target"))
    opened.begin("stop")
    opened.fail("the guest does not stop")
    content = journal.read(tmp_path)
    assert content is not None
    assert (content.steps[0].status, content.steps[0].cause) == (
        CutoverStatus.FAILED,
        "the guest does not stop",
    )


def test_the_stopwatch_of_a_journal_still_shows_its_steps(tmp_path: Path) -> None:
    shown: list[str] = []
    watch = Stopwatch(begins=shown.append, ends=lambda step: shown.append(f"{step.name} done"))
    with journal.opened(tmp_path, "web1", Path("/target")).watched(watch).step("verify"):
        pass
    assert shown == ["verify", "verify done"]
    assert [step.name for step in watch.steps] == ["verify"]


def test_a_new_cutover_keeps_what_has_to_be_put_back(tmp_path: Path) -> None:
    opened = journal.opened(tmp_path, "web1", Path("/target"))
    links = (MovedLink(path="/etc/xen/auto/web1", target="../web1.cfg"),)
    opened.note(autostart=links, closed=Closed.ROLLED_BACK, owner=Owner.KVM, stopped=1.0)
    opened.begin("check")
    opened.start_anew()
    content = journal.read(tmp_path)
    assert content is not None
    assert content.autostart == links
    assert (content.closed, content.owner, content.stopped, content.steps) == (None, Owner.XEN, None, ())


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"guest": "web1"}', '{"guest": "web1", "target": "/t", "unknown": 1}'],
)
def test_a_damaged_journal_is_never_an_absent_one(tmp_path: Path, text: str) -> None:
    (tmp_path / journal.FILE).write_text(text)
    with pytest.raises(Failed, match="is damaged"):
        journal.read(tmp_path)


def test_a_journal_of_another_format_or_another_guest_is_refused(tmp_path: Path) -> None:
    (tmp_path / journal.FILE).write_text('{"format": 2, "guest": "web1", "target": "/t"}')
    with pytest.raises(Failed, match="has format 2"):
        journal.read(tmp_path)
    (tmp_path / journal.FILE).write_text('{"guest": "web1", "target": "/t"}')
    with pytest.raises(Refused, match="is about web1 on /t"):
        journal.opened(tmp_path, "web2", Path("/t"))
