"""A pass over a real sshd, whose link is cut, or of whose processes one is killed or stopped, at a seeded
moment: it ends in time, nothing outside the range is touched, and the job goes on to an identical target.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import pytest
from killed_jobs import MIB, Job, forked, wait_for
from links_to_cut import LinkToCut
from played_links import PlayedTransport
from sshd import ALIAS, Server, descendants, make_keys, start, stop

from blocksync import remote
from blocksync.errors import BlocksyncError, ExitCode
from blocksync.hosts.name import HostName
from blocksync.passes import PassRequest
from blocksync.transports.openssh import OpenSSH
from blocksync.wire.link import PATIENCE
from blocksync.wire.messages import Role

NAME = "the far host"
# So that most moments of a pass are in the middle of its data.
RATE = 12 * MIB
# What is promised; and how long a process may take that has nothing more to wait for.
NOTICED = 30.0
TRIES = 4
BESIDE_PYTHON = Path(sys.executable).parent

Victim = Literal["near end", "ssh", "control connection", "sshd", "agent", "link"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)


@dataclass(frozen=True, slots=True)
class FarHost:
    """An sshd behind a link. What it starts is marked by `mark` in its environment."""

    server: Server
    link: LinkToCut
    config: Path
    runtime: Path
    mark: bytes

    def run(self, request: PassRequest, far: Role, patience: float) -> int:
        """A pass by a process of its own; its id."""

        def be_near() -> int:
            transport = OpenSSH(HostName(None, ALIAS), self.config)
            try:
                remote.run(request, far=far, transport=transport, name=NAME, patience=patience)
            except BlocksyncError as error:
                return int(error.exit_code)
            finally:
                transport.close()
            return 0

        return forked(be_near)

    def find(self, victim: Victim, near: int) -> list[int]:
        """The processes of a pass that play a part in it now."""
        match victim:
            case "near end":
                return [near]
            case "ssh":
                return [pid for pid in descendants(near) if comm(pid) == "ssh"]
            case "control connection":
                return [
                    pid for pid in everybody() if bytes(self.runtime) in words(pid) and b"[mux]" in words(pid)
                ]
            case "sshd":
                return [pid for pid in descendants(self.server.process.pid) if comm(pid) == "sshd"]
            case "agent":
                return self.agents()
            case "link":
                return []

    def agents(self) -> list[int]:
        """The far ends that run, whoever their parents are."""
        return [pid for pid in everybody() if b"\0agent\0" in words(pid) and self.mark in environment(pid)]

    def strike(self, victim: Victim, near: int) -> None:
        """Kill what is there of a victim, as soon as something is, unless the pass ends before."""
        if victim == "link":
            self.link.cut()
            return
        while not (found := self.find(victim, near)) and comm(near) not in ("", "Z"):
            time.sleep(0.002)
        for pid in found:
            signal_if_there(pid, signal.SIGKILL)

    def wait_for_agents(self) -> None:
        until = time.monotonic() + NOTICED
        while self.agents():
            assert time.monotonic() < until, "the far end that was left hangs"
            time.sleep(0.005)


def everybody() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def read(pid: int, name: str) -> bytes:
    """A file of a process; nothing when that has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def words(pid: int) -> bytes:
    return read(pid, "cmdline")


def environment(pid: int) -> bytes:
    return read(pid, "environ")


def comm(pid: int) -> str:
    """Its name; Z for one that has ended."""
    stat = read(pid, "stat").decode(errors="replace")
    state = stat.rpartition(")")[2].split()[:1]
    return "Z" if state == ["Z"] else stat.partition("(")[2].rpartition(")")[0]


def signal_if_there(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@pytest.fixture
def far_host(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarHost]:
    keys = make_keys(tmp_path_factory.mktemp("keys"))
    runtime = tmp_path_factory.mktemp("run")
    mark = f"KILLED_IN={tmp_path}"
    path = f"{BESIDE_PYTHON}:{os.environ['PATH']}"
    server = start(tmp_path / "sshd", keys, environment=f'PATH="{path}" {mark}')
    link = LinkToCut(server.port)
    config = tmp_path / "ssh_config"
    config.write_text(
        server.config.read_text().replace(
            f"Port {server.port}", f"Port {link.port}\n HostKeyAlias [127.0.0.1]:{server.port}"
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        host = FarHost(server, link, config, runtime, mark.encode())
        try:
            yield host
        finally:
            link.close()
            stop(server)
            for pid in [*host.agents(), *host.find("control connection", 0)]:
                signal_if_there(pid, signal.SIGKILL)


def strike_and_go_on(
    host: FarHost, folder: Path, far: Role, chance: random.Random, victims: Callable[[], list[Victim]]
) -> int:
    """Passes struck at random moments; how many of them were under way."""
    job = Job(folder, chance)
    request = replace(job.request, bytes_per_second=RATE)
    started = time.monotonic()
    assert wait_for(host.run(request, far, PATIENCE)) == ExitCode.DONE
    job.check_copied()
    longest = time.monotonic() - started
    struck = 0
    for victim in victims():
        for _ in range(TRIES):
            job.change()
            if strike_once(host, request, far, victim, chance.random() * longest):
                struck += 1
                break
            # It was over before: the first pass took longer than those after it.
            longest *= 0.7
        job.check_around()
        if chance.random() < 0.3:
            # Now and then a pass goes on from what two of them have left.
            continue
        remote.run(job.request, far=far, transport=PlayedTransport())
        job.check_copied()
    remote.run(job.request, far=far, transport=PlayedTransport())
    job.check_copied()
    return struck


def strike_once(host: FarHost, request: PassRequest, far: Role, victim: Victim, delay: float) -> bool:
    """Strike a pass `delay` seconds after its start; whether it was under way."""
    near = host.run(request, far, PATIENCE)
    time.sleep(delay)
    host.strike(victim, near)
    status = wait_for(near, NOTICED)
    host.wait_for_agents()
    assert status in (ExitCode.DONE, ExitCode.FAILED, ExitCode.INTERRUPTED, -signal.SIGKILL), victim
    return status != ExitCode.DONE


@pytest.mark.parametrize("far", ["source", "target"])
def test_a_pass_over_ssh_goes_on_whatever_was_killed(tmp_path: Path, far_host: FarHost, far: Role) -> None:
    chance = random.Random(21)
    folder = tmp_path / "job"
    folder.mkdir()
    assert strike_and_go_on(far_host, folder, far, chance, lambda: list(VICTIMS)) >= len(VICTIMS) // 2


@pytest.mark.long
@pytest.mark.parametrize("far", ["source", "target"])
def test_a_pass_over_ssh_goes_on_whatever_was_killed_a_hundred_times(
    tmp_path: Path, far_host: FarHost, far: Role
) -> None:
    chance = random.Random(22)
    folder = tmp_path / "job"
    folder.mkdir()
    struck = strike_and_go_on(far_host, folder, far, chance, lambda: chance.choices(VICTIMS, k=110))
    assert struck >= 55


@pytest.mark.parametrize(
    "patience", [2.0, pytest.param(PATIENCE, marks=pytest.mark.long)], ids=["short", "as promised"]
)
@pytest.mark.parametrize("silent", ["agent", "sshd", "link"])
def test_a_pass_whose_far_side_falls_silent_is_given_up(
    tmp_path: Path, far_host: FarHost, silent: Victim, patience: float
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    job = Job(folder, random.Random(23))
    # Slow enough to be in the middle for seconds.
    near = far_host.run(replace(job.request, bytes_per_second=MIB), "source", patience)
    until = time.monotonic() + 20
    while not job.request.digests.exists():  # type: ignore[union-attr]
        assert time.monotonic() < until
        time.sleep(0.01)
    started = time.monotonic()
    stopped = far_host.find(silent, near)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    if silent == "link":
        far_host.link.stall()
    try:
        assert wait_for(near, NOTICED) == ExitCode.INTERRUPTED
        assert time.monotonic() - started >= patience - 1
    finally:
        for pid in stopped:
            signal_if_there(pid, signal.SIGKILL)
    job.check_around()
    remote.run(job.request, far="source", transport=PlayedTransport())
    job.check_copied()
