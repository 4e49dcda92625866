"""The link to the Xen host is cut as a step of the cutover begins, and stays cut: an error says what to do,
and with the link back the same command goes on, or `rollback` goes back.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sshd
import xl_double
from sshd import Server
from test_passes_and_cutover import digest, on_target

from orchestrate.job import journal
from orchestrate.job.journal import Closed
from patience import wait_for

# Those after them need no link, where there are no snapshots to drop.
WITH_LINK = ("check", "pass before the proof", "stop", "prove that it is stopped", "last pass", "verify")
# The command itself, which finds modules where the tests do. The sshd that an argument names gets a signal,
# with its connections, once a step has begun. SIGKILL: it is gone. SIGSTOP: a pulled cable; the connection is
# given up after three seconds.
CUT = """
import os, signal, sys
sys.path[:0] = sys.argv.pop(1).split(os.pathsep)
from sshd import descendants
from blocksync.transports import openssh
from orchestrate import cli; from orchestrate.job import journal
openssh._ALIVE_SECONDS = 1
listener, step, blow = int(sys.argv.pop(1)), sys.argv.pop(1), signal.Signals[sys.argv.pop(1)]
told = journal.Journal.begin
def tell(self, what):
    told(self, what)
    if what == step:
        below = [pid for pid in descendants(listener) if open(f"/proc/{pid}/comm").read() == "sshd\\n"]
        for pid in [listener, *below]:
            os.kill(pid, blow)
journal.Journal.begin = tell
cli.main()
"""


class FarXen:
    """The Xen host: an sshd that can be ended and started again, and a toolstack."""

    def __init__(self, folder: Path) -> None:
        self.xl = xl_double.make(folder / "toolstack")
        (folder / "keys").mkdir()
        there = f"{self.xl.folder}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        keys = sshd.make_keys(folder / "keys")
        self.server: Server = sshd.start(folder / "sshd", keys, environment=f"PATH={there}")

    def is_gone(self) -> bool:
        """Whether the command came as far as the cut."""
        return self.server.process.poll() == -signal.SIGKILL

    def is_silent(self) -> bool:
        """Whether the command came as far as the pulled cable."""
        return "\nState:\tT" in Path(f"/proc/{self.server.process.pid}/status").read_text()

    def comes_back(self) -> None:
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", self.server.folder / "sshd_config"]
        with (self.server.folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log)
        self.server = replace(self.server, process=process)
        wait_for(lambda: "Server listening" in (self.server.folder / "log").read_text())


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarXen]:
    host = FarXen(tmp_path)
    monkeypatch.setenv("XEN2KVM_SSH_CONFIG", str(host.server.config))
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", f"qemu+unix:///system?socket={tmp_path}/none")
    yield host
    sshd.stop(host.server)


@pytest.fixture
def far_guest(planned_guest, far: FarXen):
    """Planned from its files, as if they had been seen from far."""
    planned_guest.plan.write_text('xen_host = "xenhost"\n' + planned_guest.plan.read_text())
    return planned_guest


def cut_over_with_a_cut(guest, far: FarXen, step: str) -> subprocess.CompletedProcess[str]:
    done = cut_over_with(signal.SIGKILL, guest, far, step)
    assert far.is_gone(), done.stderr
    far.comes_back()
    return done


def cut_over_with(blow: signal.Signals, guest, far: FarXen, step: str) -> subprocess.CompletedProcess[str]:
    argv = [CUT, os.pathsep.join(sys.path), far.server.process.pid, step, blow.name]
    command = [sys.executable, "-c", *map(str, argv), "cutover", str(guest.plan)]
    done = subprocess.run(
        [*command, f"--job-dir={guest.folder / 'job'}", "--override=not-rehearsed"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def assert_says_what_to_do(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode in {1, 5}, done.stderr
    assert "hint:" in done.stderr
    assert "xenhost" in done.stderr


def owner_of(guest) -> tuple[str, Closed | None]:
    content = journal.read(guest.folder / "job")
    assert content is not None
    return content.owner, content.closed


@pytest.mark.parametrize("step", WITH_LINK)
def test_a_link_cut_at_any_step_comes_back_and_the_cutover_goes_on(far_guest, far, step):
    before = {device: digest(path) for device, path in far_guest.volumes.items()}
    assert_says_what_to_do(cut_over_with_a_cut(far_guest, far, step))
    assert owner_of(far_guest) == ("xen", None)
    far_guest.result("cutover")
    assert_moved(far_guest, far, before)


@pytest.mark.parametrize("step", WITH_LINK)
def test_a_link_cut_at_any_step_comes_back_and_the_guest_goes_back(far_guest, far, step):
    before = {device: digest(path) for device, path in far_guest.volumes.items()}
    assert_says_what_to_do(cut_over_with_a_cut(far_guest, far, step))
    assert far_guest.result("rollback")["started"]
    assert far.xl.running
    assert owner_of(far_guest) == ("xen", Closed.ROLLED_BACK)
    assert {device: digest(path) for device, path in far_guest.volumes.items()} == before


def test_a_cable_that_is_pulled_before_an_agent_answers_is_told_in_words_that_help(far_guest, far):
    before = {device: digest(path) for device, path in far_guest.volumes.items()}
    # Agents wait there only while the guest runs: the next command finds it stopped, and starts its own.
    cut_over_with_a_cut(far_guest, far, "last pass")
    done = cut_over_with(signal.SIGSTOP, far_guest, far, "verify")
    assert far.is_silent(), done.stderr
    far.server.signal(signal.SIGCONT)
    assert done.returncode == 1, done.stderr
    said = done.stderr[done.stderr.index("error: ") :]
    assert said == (
        "error: ssh xenhost: the link broke: the connection ended before its agent answered\n"
        "  hint: see that the host is up and reached again, then run the same command again: "
        "it goes on from where it was; or go back with `xen2kvm rollback`\n"
    )
    far_guest.result("cutover")
    assert_moved(far_guest, far, before)


def test_a_link_that_is_cut_after_the_proof_is_missed_by_nobody(far_guest, far):
    before = {device: digest(path) for device, path in far_guest.volumes.items()}
    done = cut_over_with_a_cut(far_guest, far, "fix-ups")
    assert done.returncode == 0, done.stderr
    assert_moved(far_guest, far, before)


def assert_moved(guest, far: FarXen, before: dict[str, str]) -> None:
    assert owner_of(guest) == ("xen", Closed.DONE)
    assert not far.xl.running
    assert len(far.xl.calls("shutdown")) == 1
    assert far.xl.calls("create") == []
    assert {device: digest(path) for device, path in guest.volumes.items()} == before
    assert on_target(guest, "xvda3") == guest.volumes["xvda3"].read_bytes()
