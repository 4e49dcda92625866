"""Listings as hosts print them, holders of real devices, and the order of commands with an `xl` on PATH."""

import os
import subprocess
from pathlib import Path

import pytest

from blocksync.errors import Failed, Refused
from blocksync.hosts.host import ThisHost
from orchestrate.xen import toolstack
from orchestrate.xen.toolstack import AutostartLink, DomainState, Toolstack, holders_in, state_in
from patience import wait_for

XL = """\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0  1536     1     r-----      60.3
web1                                         1   256     1     -b----       3.5
web10                                        2   256     1     --p---       0.1
kept                                         3   256     1     --ps--       9.9
broken                                       4   256     1     ----c-       9.9
"""
XM = """\
Name                                        ID   Mem VCPUs      State   Time(s)
Domain-0                                     0   944     2     r-----    201.5
web1                                             512     1               10.2
db                                           7   512     1     ------     10.2
"""
XL_DOUBLE = """#!/bin/sh
# A toolstack that keeps its guests as files: enough for the order of commands.
cd {folder}
echo "$@" >>calls
case $1 in
list) echo 'Name                                        ID   Mem VCPUs\tState\tTime(s)'
    for guest in *.running; do [ -e $guest ] && echo "${{guest%.running}} 1 256 1 -b---- 3.5"; done; exit 0 ;;
domid) [ -e $2.running ] ;;
shutdown) [ -e stubborn ] || rm $2.running ;;
destroy) rm $2.running ;;
create) [ -e $2 ] || {{ echo "no such file: $2" >&2; exit 1; }}; touch web1.running ;;
esac
"""


@pytest.fixture
def xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a toolstack's double, first on PATH; web1 runs."""
    script = tmp_path / "bin" / "xl"
    script.parent.mkdir()
    script.write_text(XL_DOUBLE.format(folder=tmp_path))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    (tmp_path / "web1.running").touch()
    return tmp_path


def found() -> Toolstack:
    answering = toolstack.find(ThisHost())
    assert answering is not None
    return answering


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("web1", DomainState.RUNNING),
        ("web10", DomainState.PAUSED),
        ("kept", DomainState.SHUTDOWN),
        ("broken", DomainState.SHUTDOWN),
        ("web", None),
        ("1", None),
    ],
)
def test_a_state_is_that_of_the_exact_name(name: str, state: DomainState | None) -> None:
    assert state_in(XL, name) is state


def test_a_guest_that_xend_only_remembers_does_not_run() -> None:
    assert state_in(XM, "web1") is None
    assert state_in(XM, "db") is DomainState.RUNNING


@pytest.mark.parametrize(
    "listing",
    ["", "ERROR: no hypervisor\n", f"{XL}web2 what is this\n", f"{XL}web2\n", f"{XL}web2 1 2 3 4\n"],
)
def test_a_listing_that_is_none_is_never_an_absent_guest(listing: str) -> None:
    with pytest.raises(Failed):
        state_in(listing, "web2")


def test_a_host_without_a_toolstack_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolstack.find(ThisHost()) is None


def test_a_toolstack_that_fails_is_not_an_absent_one(xl: Path) -> None:
    (xl / "bin" / "xl").write_text("#!/bin/sh\necho 'xend is running' >&2; exit 1\n")
    with pytest.raises(Failed, match="xend is running"):
        toolstack.find(ThisHost())


def test_shutdown_ends_when_the_guest_is_gone(xl: Path) -> None:
    assert found().shutdown("web1", 5)
    assert found().state("web1") is None


def test_a_guest_that_stays_is_never_destroyed(xl: Path) -> None:
    (xl / "stubborn").touch()
    answers = iter([True, False])
    assert not found().shutdown("web1", 1, wait_on=lambda: next(answers))
    assert found().state("web1") is DomainState.RUNNING
    assert "destroy" not in (xl / "calls").read_text()
    assert (xl / "calls").read_text().count("shutdown") == 1


def test_a_guest_is_created_from_its_configuration_or_the_reason_is_told(xl: Path) -> None:
    found().destroy("web1")
    with pytest.raises(Failed, match="no such file"):
        found().create("missing.cfg")
    (xl / "web1.cfg").touch()
    found().create("web1.cfg")
    assert found().state("web1") is DomainState.RUNNING


def test_an_open_volume_names_its_holder(xl: Path) -> None:
    volume = xl / "root.img"
    volume.write_bytes(bytes(1 << 20))
    assert found().holders([str(volume)]) == ()
    with volume.open("rb"):
        (holder,) = found().holders([str(volume)])
    assert (holder.path, holder.who) == (str(volume), f"process {os.getpid()}")


def who_has(volume: str) -> list[str]:
    """Who has a volume open; for a moment that may be any program that looks at all block devices."""
    return [holder.who for holder in found().holders([volume])]


def test_a_mounted_volume_and_a_loop_device_are_holders(xl: Path) -> None:
    volume, at = xl / "root.img", xl / "mounted"
    volume.write_bytes(bytes(4 << 20))
    at.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(volume)], check=True)
    attach = ["losetup", "--find", "--show", str(volume)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        wait_for(lambda: who_has(str(volume)) == [f"device {device}"])
        subprocess.run(["mount", device, str(at)], check=True)
        try:
            assert f"mounted at {at}" in who_has(device)
        finally:
            subprocess.run(["umount", str(at)], check=True)
        wait_for(lambda: who_has(device) == [])
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_backend_of_another_domain_and_an_opener_of_device_mapper_are_holders() -> None:
    report = (
        "volume /dev/vg0/root\ndevice 254:3\nopen 1\n\nvolume /srv/data.img\n\nmounts\n"
        "22 1 254:30 / / rw - ext4 /dev/x rw\nbackends\n"
        '/local/domain/0/backend/vbd/5/51714/params = "/dev/vg0/root"\n'
        '/local/domain/0/backend/vbd/5/51714/physical-device = "fe:3"\n'
        '/local/domain/0/backend/qdisk/5/51715/params = "aio:/srv/data.img"\n'
        '/local/domain/0/backend/vbd/6/51714/physical-device = "fe:30"\n'
    )
    assert [(holder.path, holder.who) for holder in holders_in(report)] == [
        ("/dev/vg0/root", "device mapper counts 1 openers"),
        ("/dev/vg0/root", "backend /local/domain/0/backend/vbd/5/51714"),
        ("/srv/data.img", "backend /local/domain/0/backend/qdisk/5/51715"),
    ]


def test_a_report_that_was_cut_off_proves_nothing() -> None:
    with pytest.raises(Failed, match="cut off"):
        holders_in("volume /dev/vg0/root\ndevice 254:3\nopen 0\n\nmounts\n")


def test_autostart_links_go_and_come_back_as_they_were(xl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto, config = xl / "auto", xl / "web1.cfg"
    auto.mkdir()
    config.write_text("name = 'web1'\n")
    (auto / "10-web1").symlink_to("../web1.cfg")
    (auto / "other").symlink_to("../other.cfg")
    monkeypatch.setattr(toolstack, "AUTOSTART", str(auto))
    links = found().autostart(str(config), "web1")
    assert links == (AutostartLink(str(auto / "10-web1"), "../web1.cfg"),)
    for _ in range(2):
        found().unlink(links)
        assert found().autostart(str(config), "web1") == ()
    for _ in range(2):
        found().link(links)
        assert found().autostart(str(config), "web1") == links
    (auto / "copy").write_text(config.read_text())
    with pytest.raises(Refused, match="is no link"):
        found().autostart(str(config), "web1")


@pytest.mark.parametrize("name", ["with\ttab", "with\nline", "with blank", "é", "-x", "'"])
def test_an_autostart_link_may_have_any_name(xl: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    auto, config = xl / "auto", xl / "web1.cfg"
    auto.mkdir()
    config.write_text("name = 'web1'\n")
    (auto / name).symlink_to("../web1.cfg")
    monkeypatch.setattr(toolstack, "AUTOSTART", str(auto))
    links = found().autostart(str(config), "web1")
    assert links == (AutostartLink(str(auto / name), "../web1.cfg"),)
    found().unlink(links)
    assert list(auto.iterdir()) == []
    found().link(links)
    assert found().autostart(str(config), "web1") == links


def test_an_autostart_link_whose_name_no_journal_holds_is_refused(
    xl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto, config = xl / "auto", xl / "web1.cfg"
    auto.mkdir()
    config.write_text("name = 'web1'\n")
    (auto / "b\udce4r").symlink_to("../web1.cfg")
    monkeypatch.setattr(toolstack, "AUTOSTART", str(auto))
    with pytest.raises(Refused, match="has a name that is no UTF-8") as refused:
        found().autostart(str(config), "web1")
    assert refused.value.guard == "autostart"


def test_a_name_with_blanks_is_found_and_mistaken_for_no_other():
    head = "Name                  ID   Mem VCPUs\tState\tTime(s)\n"
    listing = (
        head
        + "Domain-0               0  1024     2     r-----   10.0\n"
        + "Web Server 2           7   256     1     -b----    1.5\n"
    )
    assert state_in(listing, "Web Server 2") is DomainState.RUNNING
    assert state_in(listing, "Web Server") is None
    assert state_in(listing, "Web") is None
