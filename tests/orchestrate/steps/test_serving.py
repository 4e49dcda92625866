"""A guest that is up: its checks run while its addresses are waited for."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from played_migration import plan

from orchestrate.handover import announce, start_on_kvm
from orchestrate.job import journal
from orchestrate.job.folder import Job
from orchestrate.job.stopwatch import Stopwatch
from orchestrate.plan.model import Boot, Check, Nic


class Running:
    """The KVM side of a guest that runs."""

    autostarts = False

    @property
    def libvirt(self) -> "Running":
        return self

    def runs(self) -> bool:
        return True

    def autostart(self, name: str, *, on: bool) -> None:
        self.autostarts = on


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "consoles").mkdir()
    (tmp_path / "consoles" / "kvm.log").write_text("earlier login:\nbooting\nweb1 login:")
    wanted = replace(
        plan(tmp_path / "target", ("root",)),
        boot=Boot(root="root", arguments=(), expect="login:"),
        nic=(Nic(mac="00:16:3e:00:00:01", bridge="x2knone0", addresses=("192.0.2.7",)),),
        check=(Check(command=("true",)),),
    )
    return Job(tmp_path, wanted)


def test_an_address_that_is_missing_is_told_and_holds_up_no_check(job, monkeypatch):
    def slowly(announcements, seconds):
        time.sleep(1)
        return tuple(f"{one.address} does not answer" for one in announcements)

    monkeypatch.setattr(announce, "missing", slowly)
    opened = journal.opened(job.folder, "web1", job.plan.target)
    began, kvm, watch = time.time(), Running(), Stopwatch()
    results, notes = start_on_kvm.prove_serving(job, opened, kvm, seconds=10, watch=watch)
    assert notes[0] == "192.0.2.7 does not answer"
    assert "x2knone0" in notes[1]
    (result,) = results
    assert result.passed is not None
    assert opened.content.serving == result.passed < began + 0.9
    assert [step.name for step in watch.steps] == ["console", "address", "announce", "checks", "autostart"]
    assert kvm.autostarts
