"""Which transport is taken when, and that loading the package loads no library that is not needed."""

import subprocess
import sys

import pytest
from sshd import Server

from blocksync.errors import Usage
from blocksync.hosts.name import HostName
from blocksync.transports.choice import choose
from blocksync.transports.openssh import OpenSSH
from blocksync.transports.paramiko_ssh import Paramiko
from blocksync.transports.tls import Tls

HOST = HostName(None, "xenhost")


def test_the_users_ssh_is_the_default_where_there_is_one(monkeypatch):
    said: list[str] = []
    assert isinstance(choose(HOST, notice=said.append), OpenSSH)
    assert said == []
    monkeypatch.setenv("PATH", "/nonexistent")
    assert isinstance(choose(HOST, notice=said.append), Paramiko)
    assert "no ssh on PATH" in said[0]


def test_tls_is_brokered_by_the_ssh_that_is_there(monkeypatch):
    transport = choose(HOST, kind="tls", notice=print)
    assert isinstance(transport, Tls) and isinstance(transport.control, OpenSSH)
    monkeypatch.setenv("PATH", "/nonexistent")
    transport = choose(HOST, kind="tls", notice=print)
    assert isinstance(transport, Tls) and isinstance(transport.control, Paramiko)


@pytest.mark.parametrize("kind", ["openssh", "paramiko"])
def test_a_fingerprint_goes_with_either(kind):
    fingerprint = "SHA256:" + "A" * 43
    assert choose(HOST, kind=kind, fingerprint=f"{fingerprint}=", notice=print).fingerprint == fingerprint


def test_what_is_no_transport_and_no_fingerprint_is_refused():
    with pytest.raises(Usage):
        choose(HOST, kind="rsh", notice=print)
    with pytest.raises(Usage):
        choose(HOST, fingerprint="MD5:00", notice=print)


def test_another_ssh_config_is_read_when_the_environment_names_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XEN2KVM_SSH_CONFIG", str(server.config))
    for kind in ("openssh", "paramiko"):
        transport = choose(server.host, kind=kind, notice=print)
        channel = transport.run(("echo", "reached"))
        assert channel.stdout.read(8) == b"reached\n"
        channel.close()
        transport.close()


def test_an_ssh_config_that_is_named_wins_over_the_environment_s(server: Server, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_text("Host *\n  HostName host.invalid\n")
    monkeypatch.setenv("XEN2KVM_SSH_CONFIG", str(other))
    transport = choose(server.host, config=server.config, notice=print)
    channel = transport.run(("echo", "reached"))
    assert channel.stdout.read(8) == b"reached\n"
    channel.close()
    transport.close()


def test_an_ssh_config_that_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Usage, match="is no file"):
        choose(HOST, config=tmp_path / "config", notice=print)
    monkeypatch.setenv("XEN2KVM_SSH_CONFIG", str(tmp_path / "config"))
    with pytest.raises(Usage, match="is no file"):
        choose(HOST, notice=print)


def test_choosing_ssh_loads_neither_paramiko_nor_cryptography():
    script = (
        "import sys; from blocksync.transports.choice import choose;"
        "from blocksync.hosts.name import HostName;"
        "choose(HostName(None, 'x'), kind='openssh', notice=print);"
        "sys.exit(any(name in sys.modules for name in ('paramiko', 'cryptography', 'ssl')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
