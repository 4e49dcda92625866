"""What every transport promises, on a real sshd."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from blocksync.errors import Failed, Usage
from blocksync.transports.failures import HostKeyUnknown
from blocksync.transports.interface import Transport
from blocksync.transports.openssh import OpenSSH
from blocksync.transports.paramiko_ssh import Paramiko
from blocksync.transports.tls import Tls


def tls(host, **options) -> Tls:
    return Tls(OpenSSH(host, **options), notice=pytest.fail)


KINDS = {"openssh": OpenSSH, "paramiko": Paramiko, "tls": tls}
MiB = 1 << 20

# Who is trusted is decided by ssh alone.
ssh_itself = pytest.mark.parametrize("make", ["openssh", "paramiko"], indirect=True)

# Sends back what it reads while it writes far more on standard error than any pipe or window holds.
FLOOD = (
    "import os, sys, threading\n"
    "def flood():\n"
    "    for _ in range(16 * 1024): os.write(2, b'e' * 1024)\n"
    "t = threading.Thread(target=flood); t.start()\n"
    "while piece := os.read(0, 1 << 16):\n"
    "    while piece: piece = piece[os.write(1, piece):]\n"
    "t.join()"
)


@pytest.fixture(params=KINDS, scope="session")
def transport(request, server) -> Iterator[Transport]:
    """A transport to the shared server, connected once."""
    shared = KINDS[request.param](server.host, config=server.config)
    yield shared
    shared.close()


@pytest.fixture(params=KINDS)
def make(request) -> Iterator[Callable[..., Transport]]:
    """Make a transport to a server; it is closed at the end."""
    made: list[Transport] = []

    def transport_to(server, **options) -> Transport:
        made.append(KINDS[request.param](server.host, config=server.config, **options))
        return made[-1]

    yield transport_to
    for one in made:
        one.close()


def read_all(channel) -> bytes:
    received = b""
    while piece := os.read(channel.stdout.fileno(), MiB):
        received += piece
    return received


def test_a_command_gives_its_output_its_words_and_its_status(transport):
    channel = transport.run(["sh", "-c", "echo out; echo words >&2; exit 7"])
    assert read_all(channel) == b"out\n"
    assert channel.wait(10) == 7
    assert channel.stderr_tail() == "words\n"


def test_words_arrive_as_they_were_given(transport):
    words = ["two words", "it's", '"', "$HOME", "`id`", "a;b", "*", "-x", "", "~", "#", "!!", "é"]
    channel = transport.run(["printf", "%s|", *words])
    assert read_all(channel).decode().split("|")[:-1] == words


def test_a_command_that_begins_with_a_dash_is_no_option_of_ssh(transport):
    channel = transport.run(["-V"])
    assert channel.wait(10) != 0
    assert "OpenSSH" not in channel.stderr_tail()


def test_big_binary_data_passes_both_ways_while_stderr_is_flooded(transport, exchange):
    sent = os.urandom(MiB) * 32
    channel = transport.run(["python3", "-c", f"exec({FLOOD!r})"])
    assert exchange(channel, sent) == sent
    assert channel.wait(10) == 0
    tail = channel.stderr_tail()
    assert set(tail) == {"e"} and len(tail) <= 64 << 10


def test_reading_goes_on_after_the_end_of_the_input_was_sent(transport):
    channel = transport.run(["sh", "-c", "cat > /dev/null; sleep 0.2; echo later"])
    os.write(channel.stdin.fileno(), b"x")
    channel.stdin.close()
    assert read_all(channel) == b"later\n"


def test_waiting_ends_when_its_time_is_over(transport):
    channel = transport.run(["cat"])
    with pytest.raises(TimeoutError):
        channel.wait(0.1)
    channel.close()
    channel.close()


def test_closing_a_channel_ends_its_command(transport, tmp_path):
    marks = tmp_path / "marks"
    channel = transport.run(["sh", "-c", f"cat; echo gone > {marks}"])
    channel.close()
    until = time.monotonic() + 10
    while not marks.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_commands_run_beside_each_other_on_one_connection(make, own_server, exchange):
    transport = make(own_server)
    results: dict[int, bytes] = {}

    def echo(number: int) -> None:
        results[number] = exchange(transport.run(["cat"]), bytes([number]) * MiB)

    threads = [threading.Thread(target=echo, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {number: bytes([number]) * MiB for number in range(6)}
    assert own_server.connections() == 1


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "a\rb"])
def test_control_characters_are_refused_before_connecting(make, server, text):
    before = server.connections()
    transport = make(server)
    with pytest.raises(Usage):
        transport.run(["echo", text])
    assert server.connections() == before


@ssh_itself
def test_an_unknown_host_key_is_refused(make, own_server):
    own_server.trust()
    with pytest.raises(HostKeyUnknown, match="not in known_hosts"):
        make(own_server).run(["true"])
    assert own_server.connections() == 0
    assert (own_server.folder / "known_hosts").read_text() == ""


@ssh_itself
def test_a_changed_host_key_is_refused(make, own_server):
    own_server.trust("ed25519")
    known = (own_server.folder / "known_hosts").read_text().split()
    other = (own_server.folder / "user_ed25519.pub").read_text().split()[1]
    (own_server.folder / "known_hosts").write_text(f"{known[0]} ssh-ed25519 {other}\n")
    with pytest.raises(Failed, match="not the one in known_hosts"):
        make(own_server).run(["true"])
    assert own_server.connections() == 0


@ssh_itself
def test_a_revoked_host_key_is_refused(make, own_server):
    own_server.trust("ed25519")
    known = own_server.folder / "known_hosts"
    known.write_text(f"{known.read_text()}@revoked * {known.read_text().partition(' ')[2]}")
    with pytest.raises(Failed):
        make(own_server).run(["true"])
    assert own_server.connections() == 0


@ssh_itself
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_the_fingerprint_of_any_of_its_keys_vouches_for_a_host(make, own_server, kind):
    own_server.trust()
    channel = make(own_server, fingerprint=own_server.fingerprint(kind)).run(["echo", "in"])
    assert read_all(channel) == b"in\n"


@ssh_itself
def test_another_fingerprint_is_refused_though_known_hosts_has_the_key(make, own_server):
    with pytest.raises(HostKeyUnknown, match="no host key with the fingerprint"):
        make(own_server, fingerprint="SHA256:" + "A" * 43).run(["true"])
    assert own_server.connections() == 0


@ssh_itself
def test_a_user_who_is_not_let_in_is_told_so(make, own_server):
    (own_server.folder / "authorized_keys").write_text("")
    with pytest.raises(Failed, match="does not let this user in"):
        make(own_server).run(["true"])


@ssh_itself
def test_a_port_where_nothing_listens_is_told_so(make, own_server):
    own_server.process.terminate()
    own_server.process.wait(10)
    with pytest.raises(Failed, match="nothing listens there"):
        make(own_server).run(["true"])


def test_a_killed_sshd_is_noticed_and_the_next_command_connects_again(make, own_server):
    transport = make(own_server)
    channel = transport.run(["cat"])
    os.write(channel.stdin.fileno(), b"x")
    assert os.read(channel.stdout.fileno(), 10) == b"x"
    started = time.monotonic()
    own_server.end_connections()
    assert read_all(channel) == b""
    assert channel.wait(30) == 255
    assert time.monotonic() - started < 5
    assert read_all(transport.run(["echo", "again"])) == b"again\n"


@pytest.mark.long
def test_a_link_that_falls_silent_is_noticed_within_thirty_seconds(make, own_server):
    channel = make(own_server).run(["cat"])
    os.write(channel.stdin.fileno(), b"x")
    assert os.read(channel.stdout.fileno(), 10) == b"x"
    started = time.monotonic()
    own_server.signal(signal.SIGSTOP)
    assert read_all(channel) == b""
    assert channel.wait(5) == 255
    assert time.monotonic() - started < 30
    own_server.signal(signal.SIGCONT)
