"""`plan` says all that is wrong at once, refuses what `sync` would refuse, and writes nothing then."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_refusals import REFUSED, USAGE, assert_one_error, nothing_written
from xl_double import GUEST

from blocksync.hosts.host import ThisHost
from orchestrate.guest.volumes import probe
from orchestrate.plan import file


def test_everything_that_is_wrong_is_told_together_the_worst_first(small_guest):
    small_guest.volumes["xvda3"].write_bytes(b"\xa5" * 2**20)
    small_guest.volumes["xvda1"].unlink()
    small_guest.write_config(name="'a$b'", vif="['mac=01:16:3e:00:00:01,bridge=br0']")
    small_guest.target.mkdir()
    with nothing_written(small_guest.folder):
        done = small_guest.make_plan()
    assert_one_error(done, REFUSED, "5 things are in the way", "--override unknown-filesystem", "--name a-b")
    for word in ("xvda1.img: no such volume", "multicast", "is neither a file nor a block device"):
        assert word in done.stderr
    assert done.stderr.index("xvda3") < done.stderr.index("xvda1.img")
    assert not small_guest.plan.exists()


def test_one_volume_under_two_names_is_refused(small_guest):
    image = small_guest.volumes["xvda3"]
    image.unlink()
    image.hardlink_to(small_guest.volumes["xvda2"])
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), REFUSED, "is the same volume as /dev/vg0/xvda2 (xvda2)")


def test_an_empty_volume_is_refused(small_guest):
    small_guest.volumes["xvda3"].write_bytes(b"")
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan(), REFUSED, "is empty")


def test_a_target_that_is_in_use_is_refused_before_the_plan_is_written(small_guest):
    small_guest.target.write_bytes(bytes(80 * 2**20))
    argv = ["losetup", "-f", "--show", str(small_guest.target)]
    loop = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        with nothing_written(small_guest.folder):
            assert_one_error(small_guest.make_plan(), REFUSED, loop, "name another --disk")
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


@pytest.mark.parametrize("name", ["Web Server 2", "db (old)", "a,b@c#1"])
def test_a_name_that_xen_and_libvirt_take_goes_through_to_sync(small_guest, name):
    small_guest.write_config(name=f"'{name}'")
    assert small_guest.make_plan().returncode == 0
    assert file.load(small_guest.plan).guest.name == name
    assert small_guest.step("sync").returncode == 0


@pytest.mark.parametrize("name", ["é", "$(id)", "x" * 300, "it`s"])
def test_a_name_that_no_domain_can_have_is_refused_with_a_way_that_works(small_guest, name):
    small_guest.write_config(name=f"'{name}'")
    with nothing_written(small_guest.folder):
        done = small_guest.make_plan()
    assert_one_error(done, USAGE, "cannot be a domain's name")
    option, advised = done.stderr.split()[-2:]
    assert small_guest.make_plan(option, advised).returncode == 0
    guest = file.load(small_guest.plan).guest
    assert (guest.name, guest.xen_name, guest.on_xen) == (advised, name, name)
    assert small_guest.step("sync").returncode == 0


@pytest.mark.parametrize("name", ["12", "-x"])
def test_a_name_that_xls_own_commands_mistake_is_refused_whatever_the_name_on_kvm(small_guest, name):
    small_guest.write_config(name=f"'{name}'")
    with nothing_written(small_guest.folder):
        assert_one_error(small_guest.make_plan("--name=web"), USAGE, "not for a name", "xl rename")


def test_xen_is_asked_by_the_name_that_it_knows(small_guest, xl):
    assert small_guest.make_plan("--name=another").returncode == 0
    small_guest.result("sync")
    done = small_guest.step("cutover", "--shutdown-timeout=5", "--xml", small_guest.folder / "domain.xml")
    assert done.returncode == 0, done.stderr
    assert xl.calls("shutdown") == [f"shutdown {GUEST}"]


def test_a_volume_that_may_not_be_read_is_not_called_empty(tmp_path):
    image = tmp_path / "root.img"
    image.write_bytes(bytes(2**20))
    image.chmod(0)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from blocksync.hosts.host import ThisHost\n"
        "from orchestrate.guest.volumes import probe\n"
        "os.setuid(65534)\n"
        "try:\n    probe(ThisHost(), Path(sys.argv[1]))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    argv = [sys.executable, "-c", program, str(image)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert told.startswith("Failed")
    assert "cannot be read: Permission denied" in told
    assert "run as root" in told
    image.chmod(0o600)
    assert probe(ThisHost(), image).filesystem is None


def test_a_command_to_copy_holds_for_a_name_with_a_blank(small_guest):
    small_guest.write_config(name="'Web Server 2'")
    assert small_guest.make_plan().returncode == 0
    small_guest.result("sync")
    done = small_guest.step("cutover")
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout.splitlines()[-1])[-3:] == ["virsh", "start", "Web Server 2"]
