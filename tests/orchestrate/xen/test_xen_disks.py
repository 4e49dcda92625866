"""Disk specifications of xm and xl."""

import pytest

from blocksync.errors import Usage
from orchestrate.xen.disks import XenDisk, read_disk
from orchestrate.xen.values import TextPosition, Value

PLACE = TextPosition("guest.cfg", 12, 5)


def read(text: str) -> tuple[XenDisk | None, tuple[str, ...]]:
    return read_disk(Value(text, PLACE))


@pytest.mark.parametrize(
    ("text", "vdev", "target", "form", "readonly"),
    [
        ("phy:vg0/a,xvda2,w", "xvda2", "/dev/vg0/a", "raw", False),
        ("phy:/dev/vg/x,sda1,r", "sda1", "/dev/vg/x", "raw", True),
        ("phy:/dev/vg/x,hda1,ro", "hda1", "/dev/vg/x", "raw", True),
        ("phy:/dev/vg/x,xvda1,w!", "xvda1", "/dev/vg/x", "raw", False),
        ("phy:/dev/vg/x,xvda1,r!", "xvda1", "/dev/vg/x", "raw", True),
        ("phy:/dev/vg/x , xvda1 , w", "xvda1", "/dev/vg/x", "raw", False),
        ("phy:/dev/vg/x,/dev/xvda1,w", "xvda1", "/dev/vg/x", "raw", False),
        ("phy:/dev/vg/x,xvda1:disk,w", "xvda1", "/dev/vg/x", "raw", False),
        ("phy:/dev/disk/by-id/a=b,xvda1,w", "xvda1", "/dev/disk/by-id/a=b", "raw", False),
        (
            "phy:/dev/disk/by-path/pci-0000:00:1f.2,xvda,w",
            "xvda",
            "/dev/disk/by-path/pci-0000:00:1f.2",
            "raw",
            False,
        ),
        ("/dev/vg/x,,hda", "hda", "/dev/vg/x", "raw", False),
        ("/dev/vg/x,raw,hda,rw", "hda", "/dev/vg/x", "raw", False),
        ("/x/a.qcow2,qcow2,xvdc,ro", "xvdc", "/x/a.qcow2", "qcow2", True),
        ("/x/a.vhd,vhd,xvdc", "xvdc", "/x/a.vhd", "vhd", False),
        (
            "format=raw, vdev=xvda1, access=rw, target=/dev/vg/a,b:c",
            "xvda1",
            "/dev/vg/a,b:c",
            "raw",
            False,
        ),
        ("vdev=xvda,access=ro,target=/dev/vg/x,", "xvda", "/dev/vg/x", "raw", True),
        ("/dev/vg/x,vdev=xvda,discard,backendtype=phy", "xvda", "/dev/vg/x", "raw", False),
        ("tap:qcow2:/x/a.qcow2,xvda,w", "xvda", "/x/a.qcow2", "qcow2", False),
        ("tap:aio:/x/a.img,xvda,w", "xvda", "/x/a.img", "raw", False),
        ("tap2:vhd:/x/a.vhd,xvda,w", "xvda", "/x/a.vhd", "vhd", False),
        ("file:/x/a.img,xvda1,w", "xvda1", "/x/a.img", "raw", False),
        ("drbd:r0,xvda,w", "xvda", "/dev/drbd/by-res/r0/0", "raw", False),
        ("script=block-drbd,vdev=xvda,target=r0", "xvda", "/dev/drbd/by-res/r0/0", "raw", False),
        ("phy:/dev/vg/x,0xcaa1,w", "xvdk1", "/dev/vg/x", "raw", False),
        ("phy:/dev/vg/x,d0p1,w", "xvda1", "/dev/vg/x", "raw", False),
        ("phy:/dev/vg/x,xvdtq37,w", "xvdtq37", "/dev/vg/x", "raw", False),
        ("phy:/dev/vg/x,xvda,w,0", "xvda", "/dev/vg/x", "raw", False),
    ],
)
def test_every_notation_is_read_without_a_warning(
    text: str, vdev: str, target: str, form: str, readonly: bool
) -> None:
    assert read(text) == (XenDisk(vdev, target, form, readonly, PLACE), ())


@pytest.mark.parametrize(
    ("text", "expected", "warning"),
    [
        pytest.param(
            "/dev/vg/x,xvda1,w",
            XenDisk("xvda1", "/dev/vg/x", "raw", False, PLACE),
            "no phy: or file: before /dev/vg/x",
            id="no-prefix",
        ),
        pytest.param(
            "vdev=xvda,target=/dev/vg/x,access=ro",
            XenDisk("xvda", "/dev/vg/x,access=ro", "raw", False, PLACE),
            "target= takes the rest of the text",
            id="target-not-last",
        ),
        pytest.param(
            "file:a.img,xvda,w",
            XenDisk("xvda", "/dev/a.img", "raw", False, PLACE),
            "no absolute path",
            id="relative-file",
        ),
        pytest.param(
            "iscsi:iqn.2010-01.org.example:x,xvda,w",
            XenDisk("xvda", "iqn.2010-01.org.example:x", "raw", False, PLACE),
            "block-iscsi",
            id="iscsi",
        ),
        pytest.param(
            "phy:/dev/vg/x,xvda,w,storage",
            XenDisk("xvda", "/dev/vg/x", "raw", False, PLACE),
            "belongs to the domain storage",
            id="driver-domain",
        ),
        pytest.param(
            "phy:/dev/vg/x,0x0ca1,w",
            XenDisk("xvdk1", "/dev/vg/x", "raw", False, PLACE),
            "belongs to no disk driver",
            id="number-without-xen's-major",
        ),
    ],
)
def test_doubtful_notations_are_read_with_a_warning(text: str, expected: XenDisk, warning: str) -> None:
    disk, warnings = read(text)
    assert disk == expected
    assert len(warnings) == 1
    assert warnings[0].startswith("guest.cfg:12:5: ")
    assert warning in warnings[0]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (",hdc:cdrom,r", False),
        ("vdev=hdc,devtype=cdrom,target=", False),
        (",empty,hdc", False),
        ("phy:/dev/cdrom,hdc:cdrom,r", True),
        ("/x/a.iso,raw,hdc,ro,cdrom", True),
        ("vdev=hdd,devtype=cdrom,access=ro,target=/x/a.iso", True),
    ],
)
def test_cdrom_drives_are_left_out(text: str, warned: bool) -> None:
    disk, warnings = read(text)
    assert disk is None
    assert any("left out" in warning for warning in warnings) == warned


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no target"),
        ("phy:,xvda,w", "no target"),
        ("vdev=xvda,target=", "no target"),
        ("phy:/dev/vg/x", "no virtual device"),
        ("/dev/vg/x,raw", "no virtual device"),
        ("/dev/vg/x,nonsense,xvda", "neither a disk format nor a virtual device"),
        ("format=nonsense,vdev=xvda,target=/dev/vg/x", "unknown disk format"),
        ("phy:/dev/vg/x,xvda1,please", "unknown access"),
        ("phy:/dev/vg/x,xvda1:floppy,w", "unknown kind of device"),
        ("phy:/dev/vg/x,vda,w", "not a virtual device"),
        ("ftp:/dev/vg/x,xvda,w", "unknown prefix ftp:"),
        ("colour=blue,vdev=xvda,target=/dev/vg/x", "unknown disk parameter 'colour'"),
        ("vdev=xvda,vdev=xvdb,target=/dev/vg/x", "given twice"),
        ("devtype=tape,vdev=xvda,target=/dev/vg/x", "unknown devtype"),
        ("/dev/vg/x,raw,xvda,w,dom,more", "too many parts"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_place(text: str, cause: str) -> None:
    with pytest.raises(Usage) as caught:
        read(text)
    assert caught.value.thing == "guest.cfg:12:5"
    assert cause in caught.value.cause
    assert caught.value.way_out


def test_a_disk_that_is_no_text_is_refused() -> None:
    with pytest.raises(Usage, match="text was expected, this is a list"):
        read_disk(Value((), PLACE))


def test_a_disk_knows_its_line() -> None:
    disk, _ = read("phy:/dev/vg/x,xvda,w")
    assert disk is not None
    assert disk.line == 12
