"""S-expressions of `xm list -l`."""

import pytest

from blocksync.errors import Usage
from orchestrate.xen.guest import describe
from orchestrate.xen.xm_listing import parse

DISK = "(device (vbd (uname phy:vg0/a) (dev xvda1:disk) (mode w)))"


def test_arguments_that_xend_joined_with_the_root_are_read() -> None:
    text = (
        f"(domain (name a) (memory 64) (image (linux (kernel /k) (args 'root=/dev/xvda1 ro  quiet'))) {DISK})"
    )
    guest = describe(parse(text, "a.sxp"), "a.sxp")
    assert (guest.root, guest.cmdline, guest.kernel) == ("/dev/xvda1", "root=/dev/xvda1 ro  quiet", "/k")
    assert [(disk.vdev, disk.target, disk.readonly) for disk in guest.disks] == [
        ("xvda1", "/dev/vg0/a", False)
    ]


def test_empty_settings_are_not_set() -> None:
    text = f"(domain (name a) (memory 64) (bootloader ) (image (linux (kernel ) (ramdisk ''))) {DISK})"
    guest = describe(parse(text, "a.sxp"), "a.sxp")
    assert (guest.bootloader, guest.kernel, guest.ramdisk, guest.root) == (None, None, None, None)


def test_an_hvm_guest_is_refused() -> None:
    with pytest.raises(Usage, match="HVM"):
        describe(parse(f"(domain (name a) (image (hvm (kernel ))) {DISK})", "a.sxp"), "a.sxp")


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        ("(domain (name a)", "1:1", "`(` is never closed"),
        ("(domain\n (name 'a)\n)", "2:8", "never closed"),
        ("(domain))", "1:9", "closes nothing"),
        ("(vm)", "1:1", "holds 0 guests"),
        ("(domain (name a)) (domain (name b))", "1:1", "holds 2 guests"),
        ("(" * 100_000, "1:33", "nest more than 32 deep"),
    ],
)
def test_errors_name_line_and_column(text: str, place: str, cause: str) -> None:
    with pytest.raises(Usage) as caught:
        parse(text, "a.sxp")
    assert caught.value.thing == f"a.sxp:{place}"
    assert cause in caught.value.cause
    assert caught.value.way_out
