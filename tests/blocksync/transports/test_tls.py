"""What is TLS's own: the agreement over ssh, and ssh where TLS cannot be had."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sshd import free_port, wait_for

from blocksync.errors import Failed, Usage
from blocksync.transports import relay
from blocksync.transports.certificates import make_identity
from blocksync.transports.openssh import OpenSSH
from blocksync.transports.paramiko_ssh import Paramiko
from blocksync.transports.rendezvous import Answer, Choice, Offer, Verdict, hear, say
from blocksync.transports.tls import Tls, TlsChannel

RELAY = (sys.executable, "-m", "blocksync.transports.relay")


class Elsewhere(OpenSSH):
    """An ssh that reaches the host, while its name leads somewhere else, as behind a forwarded port."""

    def address(self) -> str | None:
        return "127.0.0.2"


def says(transport, word: str) -> None:
    channel = transport.run(["echo", word])
    received = b""
    while piece := os.read(channel.stdout.fileno(), 100):
        received += piece
    assert received.decode() == f"{word}\n"
    assert channel.wait(10) == 0
    channel.close()


@pytest.mark.parametrize("control", [OpenSSH, Paramiko])
def test_bytes_go_beside_ssh_whichever_it_is(server, control, exchange):
    transport = Tls(control(server.host, server.config), pytest.fail, RELAY)
    channel = transport.run(["cat"])
    assert isinstance(channel, TlsChannel)
    sent = os.urandom(3 << 20)
    assert exchange(channel, sent) == sent
    assert channel.wait(10) == 0
    assert "TLS" in transport.describe()
    transport.close()


def test_a_command_that_is_killed_says_so_in_its_status(server):
    transport = Tls(OpenSSH(server.host, server.config), pytest.fail, RELAY)
    assert transport.run(["sh", "-c", "kill -9 $$"]).wait(10) == 128 + 9
    assert transport.run(["no-such-command"]).wait(10) == 127
    transport.close()


def test_a_port_that_cannot_be_reached_means_ssh_and_it_is_said_once(server):
    said: list[str] = []
    transport = Tls(Elsewhere(server.host, server.config), said.append, RELAY)
    says(transport, "one")
    says(transport, "two")
    assert len(said) == 1
    assert "127.0.0.2" in said[0] and "refused" in said[0]
    assert "TLS" not in transport.describe()
    transport.close()


def test_commands_that_cannot_reach_the_port_at_the_same_time_say_it_once(server):
    said: list[str] = []
    transport = Tls(Elsewhere(server.host, server.config), said.append, RELAY)
    threads = [threading.Thread(target=says, args=(transport, word)) for word in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    transport.close()


def test_the_one_port_that_is_open_is_the_one_that_is_used(server):
    port = free_port()
    transport = Tls(OpenSSH(server.host, server.config), pytest.fail, RELAY, port=port)
    channel = transport.run(["cat"])
    peers = subprocess.run(
        ["ss", "-Htn", f"sport = :{port}"], capture_output=True, text=True, check=True
    ).stdout
    assert len(peers.splitlines()) == 4
    channel.close()
    transport.close()


def test_another_machine_at_the_port_gets_no_byte(server):
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
    port = stranger.getsockname()[1]
    transport = Tls(Elsewhere(server.host, server.config), said.append, RELAY, port=port)
    says(transport, "safe")
    assert len(said) == 1 and "certificate verify failed" in said[0]
    stranger.close()
    transport.close()


@pytest.mark.parametrize(
    "far",
    [
        ("no-such-command",),
        ("sh", "-c", "echo noise; cat"),
        ("sh", "-c", "head -c 100000 /dev/zero; cat"),
        ("sh", "-c", 'echo "blocksync-tls 1 {}"; cat'),
        ("sh", "-c", "echo words >&2; exit 3"),
    ],
)
def test_a_far_end_that_cannot_or_lies_means_ssh_and_it_is_said(server, far):
    said: list[str] = []
    transport = Tls(OpenSSH(server.host, server.config), said.append, far)
    says(transport, "still")
    assert len(said) == 1
    transport.close()


def test_behind_a_jump_host_it_is_ssh(own_server):
    text = own_server.config.read_text()
    gateway = text.replace("Host xenhost", "Host gateway").replace(" RemoteCommand echo not-this\n", "")
    own_server.config.write_text(f"{text} ProxyJump gateway\n{gateway}")
    said: list[str] = []
    transport = Tls(OpenSSH(own_server.host, own_server.config), said.append, RELAY)
    says(transport, "through")
    assert "jump host" in said[0]
    transport.close()


def test_nothing_stays_on_the_host_when_the_near_end_is_killed(own_server, tmp_path):
    mark = tmp_path / "pid"
    script = (
        "import sys, time; from pathlib import Path; from blocksync.transports.hosts import Host;"
        "from blocksync.transports.openssh import OpenSSH; from blocksync.transports.tls import Tls;"
        f"t = Tls(OpenSSH(Host(None, 'xenhost'), Path({str(own_server.config)!r})), print, {RELAY!r});"
        f"c = t.run(['sh', '-c', 'echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 1000']);"
        "time.sleep(1000)"
    )
    near = subprocess.Popen([sys.executable, "-c", script])
    wait_for(mark.exists, 20)
    pid = int(mark.read_text())
    assert Path(f"/proc/{pid}").exists()
    near.send_signal(signal.SIGKILL)
    near.wait(10)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 20)


@given(st.binary(max_size=300), st.sampled_from([Offer, Answer, Choice, Verdict]))
def test_whatever_the_other_end_says_is_a_word_or_an_error(said, kind):
    for line in (said, b"blocksync-tls 1 " + said):
        reader, writer = os.pipe()
        os.write(writer, line + b"\n")
        os.close(writer)
        with pytest.raises(Failed):
            hear(reader, kind, 1.0)
        os.close(reader)


@pytest.mark.parametrize(
    "line",
    [
        b'{"certificate":"AAAA","streams":17,"port":1}',
        b'{"certificate":"AAAA","streams":0,"port":1}',
        b'{"certificate":"AAAA","streams":1,"port":65536}',
        b'{"certificate":"AAAA","streams":1,"port":-1}',
        b'{"certificate":"' + b"A" * 4096 + b'","streams":1,"port":1}',
        b"[" * 8000,
    ],
)
def test_an_offer_out_of_bounds_is_refused(line):
    reader, writer = os.pipe()
    os.write(writer, b"blocksync-tls 1 " + line + b"\n")
    with pytest.raises(Failed):
        hear(reader, Offer, 1.0)


def test_an_answer_that_does_not_come_is_not_waited_for():
    reader, _writer = os.pipe()
    with pytest.raises(Failed, match="in time"):
        hear(reader, Answer, 0.1)


def test_a_word_leaves_what_follows_it_alone():
    reader, writer = os.pipe()
    say(writer, Choice(True))
    os.write(writer, b"payload")
    assert hear(reader, Choice, 1.0) == Choice(True)
    assert os.read(reader, 100) == b"payload"


def test_the_relay_is_for_ssh_only():
    with pytest.raises(Usage):
        relay.main([])
    offer = b'blocksync-tls 1 {"certificate":"AAAA","streams":1,"port":0}\n'
    env = {**os.environ, "SSH_CONNECTION": ""}
    done = subprocess.run([*RELAY, "--", "true"], input=offer, env=env, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"names no address of this host" in done.stderr
