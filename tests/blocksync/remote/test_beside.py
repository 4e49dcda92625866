"""Conversations that begin over a real sshd and move to TLS streams beside it, or stay where they cannot."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from killed_jobs import MIB, Job, forked, wait_for
from sshd import Server, free_port, make_keys, start, stop

from blocksync import remote
from blocksync.errors import BlocksyncError, ExitCode
from blocksync.passes import PassRequest
from blocksync.remote import tls_upgrade
from blocksync.remote.far_end import FarEnd
from blocksync.transports.certificates import make_identity
from blocksync.transports.openssh import OpenSSH
from blocksync.transports.paramiko_ssh import Paramiko
from blocksync.transports.streams import Listener, Streams
from blocksync.transports.tls import Tls
from blocksync.wire.conversation import await_frame, expect, say
from blocksync.wire.frames import FrameKind, Violation
from blocksync.wire.link import Link, Lost
from blocksync.wire.messages import Arrived, Connected, Offer, OfferAnswer, Role

BESIDE_PYTHON = Path(sys.executable).parent
SIZE = 20 * MIB + 4567


class Elsewhere(OpenSSH):
    """An ssh that reaches the host, while its name leads somewhere else, as behind a forwarded port."""

    def address(self) -> str | None:
        return "127.0.0.2"


@pytest.fixture(scope="module")
def xen_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An sshd whose sessions find blocksync."""
    keys = make_keys(tmp_path_factory.mktemp("keys"))
    path = f"{BESIDE_PYTHON}:{os.environ['PATH']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        server = start(tmp_path_factory.mktemp("sshd"), keys, environment=f'PATH="{path}"')
        yield server
        stop(server)


@pytest.fixture
def bare_host(tmp_path: Path) -> Iterator[Server]:
    """An sshd whose sessions find a Python and no blocksync."""
    (tmp_path / "keys").mkdir()
    server = start(tmp_path / "sshd", make_keys(tmp_path / "keys"), environment='PATH="/usr/bin:/bin"')
    yield server
    stop(server)


def agreed(tmp_path: Path) -> PassRequest:
    """A pass over two files that differ."""
    for name in ("source", "target"):
        (tmp_path / name).write_bytes(os.urandom(SIZE))
    return PassRequest(source=tmp_path / "source", target=tmp_path / "target")


def pull(transport: Tls, tmp_path: Path, far: Role = "source") -> PassRequest:
    """A pass by this transport, which leaves the target equal to the source."""
    request = agreed(tmp_path)
    remote.run(request, far=far, transport=transport)
    assert request.source.read_bytes() == request.target.read_bytes()
    return request


@pytest.mark.parametrize("far", ["source", "target"])
@pytest.mark.parametrize("control", [OpenSSH, Paramiko])
def test_a_pass_goes_beside_ssh_whichever_it_is(xen_host, tmp_path, control, far):
    transport = Tls(control(xen_host.host, xen_host.config), pytest.fail)
    pull(transport, tmp_path, far)
    assert "TLS" in transport.describe()
    transport.close()


def test_the_one_port_that_is_open_is_the_one_that_is_used(xen_host):
    port = free_port()
    transport = Tls(OpenSSH(xen_host.host, xen_host.config), pytest.fail, port=port)
    with FarEnd(transport, "the far host"):
        peers = subprocess.run(
            ["ss", "-Htn", f"sport = :{port}"], capture_output=True, text=True, check=True
        ).stdout
        assert len(peers.splitlines()) == 4
    transport.close()


def test_the_bytes_of_a_pass_are_not_sshs(xen_host, tmp_path):
    request = agreed(tmp_path)
    transport = Tls(OpenSSH(xen_host.host, xen_host.config), pytest.fail)
    with FarEnd(transport, "the far host") as far:
        # Nothing is left of what came by ssh: the device's description comes by the streams.
        far.describe("source", str(request.source))
        with pytest.raises(BlockingIOError):
            os.read(far._channel.stdout.fileno(), 1)
    transport.close()


def test_a_port_that_cannot_be_reached_means_ssh_and_it_is_said_once(xen_host, tmp_path):
    said: list[str] = []
    transport = Tls(Elsewhere(xen_host.host, xen_host.config), said.append)
    request = pull(transport, tmp_path)
    remote.run(request, far="source", transport=transport)
    assert len(said) == 1
    assert "127.0.0.2" in said[0] and "refused" in said[0]
    assert "TLS" not in transport.describe()
    transport.close()


def test_conversations_that_cannot_reach_the_port_at_the_same_time_say_it_once(xen_host):
    said: list[str] = []
    transport = Tls(Elsewhere(xen_host.host, xen_host.config), said.append)

    def meet() -> None:
        with FarEnd(transport, "the far host"):
            pass

    threads = [threading.Thread(target=meet) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    transport.close()


def test_another_machine_at_the_port_gets_no_byte(xen_host, tmp_path):
    stranger = socket.create_server(("127.0.0.2", 0))

    def listen() -> None:
        while True:
            try:
                stream, _ = stranger.accept()
            except OSError:
                return
            with stream, contextlib.suppress(OSError):
                make_identity().accept(stream, make_identity().certificate)

    threading.Thread(target=listen, daemon=True).start()
    said: list[str] = []
    transport = Tls(Elsewhere(xen_host.host, xen_host.config), said.append, port=stranger.getsockname()[1])
    pull(transport, tmp_path)
    assert len(said) == 1 and "certificate verify failed" in said[0]
    stranger.close()
    transport.close()


def test_a_host_without_blocksync_means_ssh_and_it_is_said(bare_host, tmp_path):
    said: list[str] = []
    transport = Tls(OpenSSH(bare_host.host, bare_host.config), said.append)
    pull(transport, tmp_path)
    assert len(said) == 1 and "no blocksync" in said[0]
    transport.close()


def test_behind_a_jump_host_it_is_ssh(bare_host, xen_host, tmp_path):
    text = xen_host.config.read_text()
    gateway = text.replace("Host xenhost", "Host gateway").replace(" RemoteCommand echo not-this\n", "")
    config = tmp_path / "ssh_config"
    config.write_text(f"{text} ProxyJump gateway\n{gateway}")
    said: list[str] = []
    transport = Tls(OpenSSH(xen_host.host, config), said.append)
    with FarEnd(transport, "the far host"):
        assert len(said) == 1 and "jump host" in said[0]
    transport.close()


@pytest.mark.parametrize("victim", ["near end", "agent"])
def test_a_pass_beside_ssh_goes_on_whatever_was_killed(xen_host, tmp_path, victim):
    folder = tmp_path / "job"
    folder.mkdir()
    job = Job(folder, random.Random(31))
    request = replace(job.request, bytes_per_second=4 * MIB)

    def be_near() -> int:
        transport = Tls(OpenSSH(xen_host.host, xen_host.config), lambda why: os._exit(99))
        try:
            remote.run(request, far="source", transport=transport)
        except BlocksyncError as error:
            return int(error.exit_code)
        finally:
            transport.close()
        return 0

    near = forked(be_near)
    until = time.monotonic() + 20
    while not job.request.digests.exists():
        assert time.monotonic() < until
        time.sleep(0.005)
    (agent,) = agents(xen_host)
    os.kill(near if victim == "near end" else agent, signal.SIGKILL)
    ends = {-signal.SIGKILL} if victim == "near end" else {ExitCode.FAILED, ExitCode.INTERRUPTED}
    assert wait_for(near, 30) in ends
    while agents(xen_host):
        assert time.monotonic() < until + 30, "the far end that was left hangs"
        time.sleep(0.01)
    job.check_around()
    transport = Tls(OpenSSH(xen_host.host, xen_host.config), pytest.fail)
    remote.run(job.request, far="source", transport=transport)
    transport.close()
    job.check_copied()


def agents(server: Server) -> list[int]:
    """The agents that sessions of an sshd started, whoever their parents are."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            if b"\0agent\0" in words and f" {server.port}\0".encode() in environment:
                found.append(int(folder.name))
    return found


# A far end that lies, and a near one.


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    ours, theirs = socket.socketpair()
    yield (
        Link(ours.fileno(), ours.fileno(), peer="their end", patience=5.0),
        Link(theirs.fileno(), theirs.fileno(), peer="our end", patience=5.0),
    )
    ours.close()
    theirs.close()


def answering(link: Link, *steps: Callable[[Link], object]) -> threading.Thread:
    thread = threading.Thread(target=lambda: [step(link) for step in steps], daemon=True)
    thread.start()
    return thread


def heard(kind: type) -> Callable[[Link], object]:
    return lambda link: expect(link, kind)


@pytest.mark.parametrize(
    "answer",
    [
        OfferAnswer(certificate=b"no certificate", port=1),
        OfferAnswer(certificate=b"", port=0),
        OfferAnswer(certificate=make_identity().certificate, port=1),
        OfferAnswer(trouble="there: \x1b[2J no"),
    ],
    ids=["no certificate", "nothing", "nobody listens", "trouble"],
)
def test_an_answer_that_leads_nowhere_leaves_the_conversation_where_it_is(ends, answer):
    near, far = ends
    thread = answering(far, heard(Offer), lambda link: say(link, answer))
    with pytest.raises(tls_upgrade.NoStreams) as why:
        tls_upgrade.move_near(near, "127.0.0.1", pytest.fail, streams=1, port=0)
    assert "\x1b" not in str(why.value)
    thread.join()
    near.send(FrameKind.STOP)
    if not answer.trouble:
        assert not expect(far, Connected).all
    assert await_frame(far, FrameKind.STOP).kind is FrameKind.STOP


@pytest.mark.parametrize("offered", [b"no certificate", b"", make_identity().certificate])
def test_an_offer_whose_streams_do_not_come_leaves_the_conversation_where_it_is(ends, offered, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "127.0.0.1 1 127.0.0.1 22")
    near, far = ends
    answers: list[bool] = []
    thread = answering(
        near,
        heard(OfferAnswer),
        lambda link: say(link, Connected(all=True)),
        lambda link: answers.append(expect(link, Arrived).all),
    )
    tls_upgrade.move_far(far, Offer(certificate=offered, streams=1, port=0), pytest.fail)
    thread.join()
    assert answers == [False]
    far.send(FrameKind.STOP)
    assert await_frame(near, FrameKind.STOP).kind is FrameKind.STOP


def test_an_agent_that_nobody_reached_by_ssh_opens_no_port(ends, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "")
    near, far = ends
    tls_upgrade.move_far(far, Offer(certificate=b"", streams=1, port=0), pytest.fail)
    assert "no address of this host" in expect(near, OfferAnswer).trouble


def test_a_word_out_of_turn_is_a_violation_and_a_cut_is_a_lost_link(ends):
    near, far = ends
    answering(far, heard(Offer), lambda link: say(link, Arrived(all=True)))
    with pytest.raises(Violation, match="ARRIVED instead of ANSWER"):
        tls_upgrade.move_near(near, "127.0.0.1", pytest.fail, streams=1, port=0)
    answering(far, heard(Offer), lambda link: link.close())
    with pytest.raises(Lost):
        tls_upgrade.move_near(near, "127.0.0.1", pytest.fail, streams=1, port=0)


def test_streams_are_kept_to_be_closed_even_when_the_link_is_lost_before_they_are_used(ends):
    near, far = ends
    identity = make_identity()
    kept: list[Streams] = []

    def listen(link: Link) -> None:
        offer = expect(link, Offer)
        listener = Listener("127.0.0.1", 0, identity, offer.certificate, offer.streams)
        say(link, OfferAnswer(certificate=identity.certificate, port=listener.port))
        assert expect(link, Connected).all
        arrived = listener.streams(5.0)
        assert arrived is not None
        arrived.close()

    thread = answering(far, listen, lambda link: link.close())
    with pytest.raises(Lost):
        tls_upgrade.move_near(near, "127.0.0.1", kept.append, streams=1, port=0)
    thread.join()
    (streams,) = kept
    streams.close()
    assert all(stream.fileno() == -1 for stream in (*streams.up, *streams.down))
