"""Names and numbers of virtual devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocksync.errors import Usage
from orchestrate.xen.devices import VirtualDevice, virtual_device
from orchestrate.xen.values import TextPosition

PLACE = TextPosition("guest.cfg", 3, 9)


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("xvda", VirtualDevice("xvd", 0, None), "xvda"),
        ("xvda2", VirtualDevice("xvd", 0, 2), "xvda2"),
        ("/dev/xvda2", VirtualDevice("xvd", 0, 2), "xvda2"),
        ("xvdtq37", VirtualDevice("xvd", 536, 37), "xvdtq37"),
        ("xvdbjaa", VirtualDevice("xvd", 41938, None), "xvdbjaa"),
        ("sda1", VirtualDevice("sd", 0, 1), "sda1"),
        ("hdb3", VirtualDevice("hd", 1, 3), "hdb3"),
        ("d0p1", VirtualDevice("xvd", 0, 1), "xvda1"),
        ("d3p0", VirtualDevice("xvd", 3, None), "xvdd"),
        ("d536p37", VirtualDevice("xvd", 536, 37), "xvdtq37"),
        ("51713", VirtualDevice("xvd", 0, 1), "xvda1"),
        ("0xcaa1", VirtualDevice("xvd", 10, 1), "xvdk1"),
        ("0xca00", VirtualDevice("xvd", 0, None), "xvda"),
        (str((1 << 28) | (536 << 8) | 37), VirtualDevice("xvd", 536, 37), "xvdtq37"),
        ("2049", VirtualDevice("sd", 0, 1), "sda1"),
        ("768", VirtualDevice("hd", 0, None), "hda"),
        ("833", VirtualDevice("hd", 1, 1), "hdb1"),
        ("5632", VirtualDevice("hd", 2, None), "hdc"),
        ("0x0ca1", VirtualDevice("xvd", 10, 1), "xvdk1"),
    ],
)
def test_every_spelling_resolves(text: str, expected: VirtualDevice, name: str) -> None:
    device = virtual_device(text, PLACE)
    assert device == expected
    assert device.name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "xvd",
        "xvda0",
        "xvda01",
        "XVDA",
        "vda",
        "xvda1x",
        "d0",
        "d0p1p2",
        "-1",
        "1.5",
        "a",
        str(1 << 30),
        "²",
    ],
)
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(Usage, match="is not a virtual device") as caught:
        virtual_device(text, PLACE)
    assert caught.value.thing == "guest.cfg:3:9"


@pytest.mark.parametrize(
    "text", ["xvda256", "sda16", "sdq", "hda64", "hde", "xvdzzzzz", "d1048576p1", "d0p256"]
)
def test_devices_beyond_a_bus_are_refused(text: str) -> None:
    with pytest.raises(Usage, match="lies beyond"):
        virtual_device(text, PLACE)


@given(st.integers(0, (1 << 20) - 1), st.none() | st.integers(1, 255))
def test_names_and_numbers_lead_back_to_the_device(disk: int, partition: int | None) -> None:
    device = VirtualDevice("xvd", disk, partition)
    assert virtual_device(device.name, PLACE) == device
    assert virtual_device(f"d{disk}p{partition or 0}", PLACE) == device
    assert virtual_device(str((1 << 28) | (disk << 8) | (partition or 0)), PLACE) == device
