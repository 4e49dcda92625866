"""The Xen host is another machine, behind a real sshd: plan there, pull, cut over here."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from sshd import Server, make_keys, start, stop

import blocksync.commands.typer_app
import orchestrate.cli

USAGE = 2


@pytest.fixture
def xen_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An sshd that the user's `ssh` calls xenhost."""
    server = start(tmp_path / "sshd", make_keys(_folder(tmp_path / "keys")))
    ssh = _folder(tmp_path / "bin") / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {server.config} "$@"\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    yield server
    stop(server)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def plan_there(guest, *options: object):
    mapped = [f"--volume=/dev/vg0/{name}={path}" for name, path in guest.volumes.items()]
    url = f"ssh://xenhost{guest.config}"
    return guest.xen2kvm("plan", url, f"--disk={guest.target}", f"-o{guest.plan}", *mapped, *options)


def on_target(guest, device: str, size: int) -> bytes:
    place = next(
        part for part in guest.plan.read_text().split("[[volume]]") if f'device = "{device}"' in part
    )
    offset = int(place.split("offset = ")[1].split(",")[0])
    with guest.target.open("rb") as target:
        target.seek(offset)
        return target.read(size)


@pytest.mark.usefixtures("xen_host")
def test_a_far_guest_is_planned_pulled_changed_pulled_again_and_cut_over(small_guest):
    planned = plan_there(small_guest)
    assert planned.returncode == 0, planned.stderr
    assert 'xen_host = "xenhost"' in small_guest.plan.read_text()
    first = small_guest.result("sync")
    assert first["bytes_written"] > 0
    for device in ("xvda2", "xvda3"):
        there = small_guest.volumes[device].read_bytes()
        assert on_target(small_guest, device, len(there)) == there

    with small_guest.volumes["xvda3"].open("r+b") as volume:
        volume.seek(20 * 2**20)
        volume.write(b"changed" * 1000)
    second = small_guest.result("sync")
    assert 7000 <= second["bytes_written"] <= 2 * 65536
    report = small_guest.result("cutover")
    assert set(report["proofs"]) == {"xvda2", "xvda3"}
    assert report["last_pass"]["bytes_written"] == 0


def test_a_far_guest_is_pulled_and_cut_over_by_tls_streams_beside_ssh(small_guest, tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    keys = make_keys(_folder(tmp_path / "keys"))
    server = start(tmp_path / "sshd", keys, environment=f'PATH="{path}"')
    reach = ("--transport=tls", f"--ssh-config={server.config}")
    try:
        assert plan_there(small_guest, *reach).returncode == 0
        for command in ("sync", "cutover"):
            done = small_guest.step(command, *reach)
            assert done.returncode == 0, done.stderr
            assert "TLS" not in done.stderr, "it says when there are no streams"
    finally:
        stop(server)


@pytest.mark.usefixtures("xen_host")
def test_a_far_configuration_that_is_missing_is_named_with_its_host(small_guest):
    small_guest.config.unlink()
    done = plan_there(small_guest)
    assert done.returncode == USAGE
    assert f"ssh://xenhost{small_guest.config}" in done.stderr
    assert not small_guest.plan.exists()


@pytest.mark.usefixtures("xen_host")
def test_a_far_volume_that_is_missing_is_named_with_its_host(small_guest):
    small_guest.volumes["xvda3"].unlink()
    done = plan_there(small_guest)
    assert done.returncode == USAGE
    assert "xvda3.img" in done.stderr
    assert "xenhost" in done.stderr


def test_the_ssh_config_of_the_command_line_leads_to_the_host(small_guest, tmp_path):
    server = start(tmp_path / "sshd", make_keys(_folder(tmp_path / "keys")))
    try:
        reach = f"--ssh-config={server.config}"
        planned = plan_there(small_guest, reach)
        assert planned.returncode == 0, planned.stderr
        assert small_guest.result("sync", reach)["bytes_written"] > 0
    finally:
        stop(server)


@pytest.mark.parametrize("app", [blocksync.commands.typer_app.app, orchestrate.cli.app])
def test_every_command_that_reaches_a_host_takes_all_that_says_how(app):
    reach = {"transport", "host_key_fingerprint", "ssh_config"}
    taken = [
        {parameter.name for parameter in command.params} & reach
        for command in typer.main.get_command(app).commands.values()
    ]
    assert reach in taken
    assert all(options in (set(), reach) for options in taken)


def test_an_unsafe_host_name_is_refused(small_guest):
    done = small_guest.xen2kvm(
        "plan", "ssh://-oProxyCommand=x/etc/a.cfg", "--disk=/tmp/x", f"-o{small_guest.plan}"
    )
    assert done.returncode == USAGE
    assert not small_guest.plan.exists()
