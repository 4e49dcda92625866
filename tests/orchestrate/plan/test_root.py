"""The root is the volume that somebody named, and else the one that the guest's files tell."""

from collections.abc import Mapping

import pytest
from guest_files import Files

from blocksync.errors import Refused, Usage
from orchestrate.guest.volumes import VolumeContent
from orchestrate.plan.compose import FoundVolume
from orchestrate.plan.root import find
from orchestrate.xen.guest import parse_guest

SYSTEM = {"/etc/fstab": "/dev/hda1 / ext3 defaults 0 1\n", "/sbin/init": b""}
MENU = {"/boot/grub/menu.lst": "title x\nkernel /boot/vmlinuz root=/dev/hda1 ro\n"}
Trees = Mapping[str, Mapping[str, str | bytes]]


def root(
    settings: str, trees: Trees, wanted: str | None = None, swap: str = "hda2"
) -> tuple[str, str | None]:
    devices = [*trees, swap]
    disks = ", ".join(f"'phy:/dev/vg/{device},{device},w'" for device in devices)
    xen = parse_guest(f"name='x'\nmemory=64\ndisk=[{disks}]\n{settings}\n".encode(), "g.cfg")
    found = [
        FoundVolume(
            device=device,
            source=f"/dev/vg/{device}",
            path=f"/dev/vg/{device}",
            size=2**20,
            signature=VolumeContent(filesystem="swap" if device == swap else "ext3", uuid=f"0000-{index}"),
        )
        for index, device in enumerate(devices)
    ]
    chosen = find(xen, found, lambda volume: Files(trees[volume.device]), wanted)
    return chosen.device, chosen.why


def test_what_is_configured_or_asked_for_needs_no_reason():
    trees: Trees = {"hda1": {}, "hda3": {}}
    assert root("root='/dev/hda3 ro'", trees) == ("hda3", None)
    assert root("root='/dev/hda3 ro'", trees, "/dev/hda1") == ("hda1", None)


@pytest.mark.parametrize(
    ("trees", "why"),
    [
        ({"hda1": {**SYSTEM, **MENU}, "hda3": {}}, "menu"),
        ({"hda1": SYSTEM, "hda3": {"/grub/menu.lst": MENU["/boot/grub/menu.lst"]}}, "of hda3"),
        ({"hda1": SYSTEM, "hda3": {"/etc/passwd": b""}}, "its own fstab"),
        ({"hda1": {"/etc/fstab": "UUID=0000-0 / ext3 x 0 1\n"}, "hda3": {}}, "its own fstab"),
        ({"hda1": {"/sbin/init": b""}, "hda3": {}}, "no other volume"),
        ({"hda1": {}}, "no other can be"),
    ],
)
def test_without_a_root_the_guests_files_tell_it(trees, why):
    device, reason = root("bootloader='pygrub'", trees)
    assert device == "hda1"
    assert reason is not None
    assert why in reason
    assert "no root= is set" in reason


def test_where_nothing_tells_the_volumes_that_could_be_it_are_named():
    with pytest.raises(Refused, match="no root= is set") as refused:
        root("bootloader='pygrub'", {"hda1": {}, "hda3": {}})
    assert refused.value.way_out == "say which: --root hda1 or --root hda3"


def test_two_volumes_that_both_look_like_the_root_are_not_guessed_between():
    with pytest.raises(Refused, match="do not tell"):
        root("bootloader='pygrub'", {"hda1": {"/sbin/init": b""}, "hda3": {"/etc/passwd": b""}})


@pytest.mark.parametrize(("settings", "wanted"), [("root='/dev/hda2 ro'", None), ("", "hda2")])
def test_a_root_that_names_the_swap_is_refused_with_those_that_can_be_one(settings, wanted):
    with pytest.raises(Refused, match="names hda2, which holds swap") as refused:
        root(settings, {"hda1": SYSTEM}, wanted)
    assert refused.value.way_out == "say which: --root hda1"


def test_a_root_that_the_guest_has_not_is_named_and_the_files_decide():
    device, why = root("root='/dev/mapper/vg-root'", {"hda1": SYSTEM, "hda3": {}})
    assert device == "hda1"
    assert "root=/dev/mapper/vg-root names none of its disks" in (why or "")
    with pytest.raises(Usage, match="none of the guest's devices"):
        root("", {"hda1": SYSTEM}, "hda9")
