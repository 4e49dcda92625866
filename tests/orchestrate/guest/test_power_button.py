"""Whether somebody in the guest shuts it down when its KVM host asks."""

import pytest
from guest_files import Files

from orchestrate.guest.power_button import warnings

LOGIND = {"/usr/lib/systemd/systemd-logind": "", "/etc/hostname": "web1"}
BUS = {"/usr/share/dbus-1/system.conf": "", "/etc/hostname": "web1"}


@pytest.mark.parametrize(
    "files",
    [
        {"/usr/sbin/acpid": "", "/etc/hostname": "web1"},
        {"/sbin/acpid": "", "/etc/hostname": "web1"},
        {**LOGIND, **BUS},
        {"/lib/systemd/systemd-logind": "", "/etc/dbus-1/system.conf": ""},
    ],
)
def test_acpid_and_logind_with_its_bus_heed_the_power_button(files: dict[str, str]) -> None:
    assert warnings(Files(files)) == ()


@pytest.mark.parametrize(("files", "package"), [(LOGIND, "dbus"), (BUS, "acpid"), ({"/etc/a": ""}, "acpid")])
def test_a_guest_in_which_nobody_does_is_told_what_to_install(files: dict[str, str], package: str) -> None:
    [told] = warnings(Files(files))
    assert f"install {package} in it" in told


def test_nothing_is_said_of_a_guest_whose_files_cannot_be_seen() -> None:
    assert warnings(Files({})) == ()
