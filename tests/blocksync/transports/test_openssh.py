"""What is OpenSSH's own: the shared control connection, the user's configuration, its messages."""

import errno
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sshd import descendants, free_port, start, stop

from blocksync.errors import Failed
from blocksync.hosts.name import HostName
from blocksync.transports.failures import HostKeyUnknown, unreachable
from blocksync.transports.openssh import OpenSSH
from patience import wait_for


@pytest.fixture
def runtime(tmp_path_factory, monkeypatch) -> Path:
    """Where control sockets go."""
    folder = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def masters(folder: Path) -> list[str]:
    """The command lines of the processes that have a socket in a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if str(folder) in line]


def test_the_control_connection_is_private_shared_and_gone_afterwards(own_server, runtime):
    transport = OpenSSH(own_server.host, own_server.config)
    for _ in range(3):
        assert transport.run(["true"]).wait(10) == 0
    (folder,) = runtime.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_ISSOCK((folder / "control").stat().st_mode)
    assert own_server.connections() == 1
    transport.close()
    assert list(runtime.iterdir()) == []
    wait_for(lambda: masters(runtime) == [])
    wait_for(lambda: descendants(own_server.process.pid) == [])


@pytest.mark.parametrize("length", [59, 60, 70, 100])
def test_a_folder_for_sockets_may_be_of_any_length(own_server, monkeypatch, length):
    with tempfile.TemporaryDirectory(prefix="r") as root:
        folder = Path(root, "s" * (length - len(root) - 1))
        folder.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        transport = OpenSSH(own_server.host, own_server.config)
        try:
            assert transport.run(["true"]).wait(10) == 0
            assert len(list(folder.iterdir())) == (1 if length < 60 else 0)
        finally:
            transport.close()


def test_closing_ends_the_commands_that_still_run(own_server):
    transport = OpenSSH(own_server.host, own_server.config)
    channel = transport.run(["cat"])
    transport.close()
    assert channel.wait(10) == 255
    transport.close()


def test_a_failed_connection_leaves_nothing(own_server, runtime):
    own_server.trust()
    transport = OpenSSH(own_server.host, own_server.config)
    with pytest.raises(Failed):
        transport.run(["true"])
    assert list(runtime.iterdir()) == []
    transport.close()


def test_a_command_never_makes_a_connection_of_its_own(own_server):
    transport = OpenSSH(own_server.host, own_server.config)
    channels = [transport.run(["cat"]) for _ in range(10)]
    for channel in channels:
        channel.stdin.write(b"x")
        assert channel.stdout.read(1) == b"x"
    # sshd refuses the eleventh session of a connection.
    assert transport.run(["cat"]).wait(10) == 255
    for channel in channels:
        channel.stdin.close()
        assert channel.wait(10) == 0
    assert own_server.connections() == 1
    transport.close()


def test_aes_gcm_is_what_is_agreed_on(tmp_path, keys):
    server = start(tmp_path / "talkative", keys, log_level="DEBUG1")
    transport = OpenSSH(server.host, server.config)
    assert transport.run(["true"]).wait(10) == 0
    transport.close()
    stop(server)
    log = (server.folder / "log").read_text()
    assert "client->server cipher: aes128-gcm@openssh.com" in log
    assert "server->client cipher: aes128-gcm@openssh.com" in log


def test_ciphers_that_the_users_configuration_leaves_out_stay_out(own_server):
    text = own_server.config.read_text()
    own_server.config.write_text(f"{text} Ciphers aes256-ctr,aes256-gcm@openssh.com\n")
    transport = OpenSSH(own_server.host, own_server.config)
    assert transport.configuration().ciphers() == "aes256-gcm@openssh.com,aes256-ctr"


def test_the_users_and_the_ports_of_the_command_line_win(own_server):
    transport = OpenSSH(HostName("somebody", "xenhost", 1), own_server.config)
    with pytest.raises(Failed, match="nothing listens there"):
        transport.run(["true"])
    assert transport.configuration().values["user"] == "somebody"


def test_a_host_behind_a_jump_host_has_no_address(own_server):
    transport = OpenSSH(own_server.host, own_server.config)
    assert transport.configuration().address() == "127.0.0.1"
    own_server.config.write_text(f"{own_server.config.read_text()} ProxyJump gateway\n")
    assert transport.configuration().address() is None


def test_a_jump_host_of_the_configuration_is_used(own_server):
    text = own_server.config.read_text()
    gateway = text.replace("Host xenhost", "Host gateway").replace(" RemoteCommand echo not-this\n", "")
    # ssh hands its own -F to the ssh that jumps.
    own_server.config.write_text(f"{text} ProxyJump gateway\n{gateway}")
    transport = OpenSSH(own_server.host, own_server.config)
    channel = transport.run(["echo", "through"])
    assert os.read(channel.stdout.fileno(), 100) == b"through\n"
    transport.close()
    assert own_server.connections() == 2


def test_a_configuration_that_ssh_cannot_read_is_an_error_in_its_words(own_server):
    own_server.config.write_text("NoSuchKeyword yes\n")
    with pytest.raises(Failed, match="nosuchkeyword"):
        OpenSSH(own_server.host, own_server.config).run(["true"])


def test_ctrl_c_on_the_terminal_leaves_a_channel_alone(own_server):
    transport = OpenSSH(own_server.host, own_server.config)
    channel = transport.run(["cat"])
    ours = os.getpgrp()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    clients = [pid for pid in children if b"control" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert clients
    assert all(os.getpgid(int(pid)) != ours for pid in clients)
    channel.close()
    transport.close()


def test_no_terminal_escape_of_a_host_reaches_an_error():
    error = unreachable(HostName(None, "xenhost"), "\x1b[2Jhello\x07\nConnection refused\r\n")
    assert "\x1b" not in str(error) and "\x07" not in str(error)
    assert "nothing listens" in str(error)


def test_missing_ssh_says_what_to_install(own_server, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Failed, match="openssh-client"):
        OpenSSH(own_server.host, own_server.config).run(["true"])


def test_neither_agent_nor_ports_nor_display_are_given_to_the_host(own_server, tmp_path, monkeypatch):
    words = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    agent, pid = re.findall(r"=([^;]+);", words)
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    config, port = tmp_path / "config", free_port()
    config.write_text(
        own_server.config.read_text() + f" ForwardAgent yes\n LocalForward {port} 127.0.0.1:1\n"
    )
    show = ["sh", "-c", 'echo "$SSH_AUTH_SOCK$DISPLAY"']
    try:
        careless = ["ssh", "-F", config, "-o", "RemoteCommand=none", "-T", "--", own_server.host.name]
        given = subprocess.run(
            [*careless, 'echo "$SSH_AUTH_SOCK"'], capture_output=True, text=True, check=True
        )
        assert "/" in given.stdout
        transport = OpenSSH(own_server.host, config)
        assert transport.run(show).stdout.read(100) == b"\n"
        with socket.socket() as stranger:
            assert stranger.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        transport.close()
    finally:
        os.kill(int(pid), signal.SIGTERM)


def test_a_stale_socket_is_replaced(own_server, runtime):
    transport = OpenSSH(own_server.host, own_server.config)
    assert transport.run(["true"]).wait(10) == 0
    (folder,) = runtime.iterdir()
    subprocess.run(
        ["ssh", "-F", "/dev/null", "-S", folder / "control", "-O", "exit", "xenhost"],
        check=True,
        capture_output=True,
    )
    (folder / "control").touch()
    assert transport.run(["true"]).wait(10) == 0
    transport.close()


@pytest.mark.parametrize("loose", ["no", "accept-new", "off", "ask", "yes"])
@pytest.mark.parametrize("more", ["", " VerifyHostKeyDNS yes\n NoHostAuthenticationForLocalhost yes\n"])
def test_a_host_that_nothing_vouches_for_is_refused_whatever_the_users_configuration_allows(
    own_server, loose, more
):
    own_server.trust()
    text = own_server.config.read_text()
    own_server.config.write_text(f"{text} StrictHostKeyChecking {loose}\n UpdateHostKeys yes\n{more}")
    transport = OpenSSH(own_server.host, own_server.config)
    with pytest.raises(HostKeyUnknown, match="not in known_hosts") as refused:
        transport.run(["true"])
    assert "connect once with `ssh" in refused.value.way_out
    assert (own_server.folder / "known_hosts").read_text() == ""


def test_a_host_adds_no_key_to_those_that_are_known(own_server):
    known = own_server.folder / "known_hosts"
    before = known.read_text()
    own_server.config.write_text(f"{own_server.config.read_text()} UpdateHostKeys yes\n")
    transport = OpenSSH(own_server.host, own_server.config)
    assert transport.run(["true"]).wait(10) == 0
    transport.close()
    assert known.read_text() == before


CONNECTED = """
import sys, time
from pathlib import Path
from blocksync.hosts.name import HostName as Host
from blocksync.transports.openssh import OpenSSH
transport = OpenSSH(Host(None, sys.argv[1]), Path(sys.argv[2]))
channel = transport.run(["cat"])
print("connected", flush=True)
time.sleep(600)
"""


def test_a_process_that_was_killed_leaves_neither_connection_nor_socket(own_server, runtime):
    argv = [sys.executable, "-c", CONNECTED, own_server.host.name, str(own_server.config)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"connected\n"
        (folder,) = runtime.iterdir()
        assert masters(runtime) != []
        process.kill()
    wait_for(lambda: not folder.exists())
    wait_for(lambda: masters(runtime) == [])


def test_the_folders_of_processes_that_are_gone_are_removed_and_no_others(own_server, runtime):
    gone, held, fresh = (runtime / f"blocksync-ssh-{name}" for name in ("gone", "held", "fresh"))
    for folder in (gone, held, fresh):
        folder.mkdir(mode=0o700)
    (gone / "control").touch()
    for folder in (gone, held):
        os.utime(folder, (1, 1))
    (runtime / "blocksync-ssh-link").symlink_to(held)
    holder = os.open(held, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    transport = OpenSSH(own_server.host, own_server.config)
    assert transport.run(["true"]).wait(10) == 0
    transport.close()
    os.close(holder)
    assert {each.name for each in runtime.iterdir()} == {
        "blocksync-ssh-held",
        "blocksync-ssh-fresh",
        "blocksync-ssh-link",
    }
