"""Xen 4.0 to 4.2: `xl list -l` prints brackets that do not pair, and is read all the same."""

import pytest

from blocksync.errors import Usage
from orchestrate.xen.guest import parse_guest

LISTING = """\
(domain
\t(domid 3)
\t(create_info)
\t(hvm 0)
\t(name NAME)
\t(uuid 5f2e7d9e-0000-4000-8000-0123456789ab)
\t(xsdata (null))
\t(build_info)
\t(max_vcpus 2)
\t(tsc_mode default)
\t(max_memkb 1048576)
\t(target_memkb 524288)
\t(nomigrate 0)
\t(image
\t\t(linux 0)
\t\t\t(kernel /boot/vmlinuz-3.2.0-4-amd64)
\t\t\t(cmdline root=/dev/xvda1 ro)
\t\t\t(ramdisk (null))
\t\t)
\t)
\t(device
\t\t(tap
\t\t\t(backend_domid 0)
\t\t\t(physpath /dev/vg/root)
\t\t\t(virtpath xvda1)
\t\t\t(readwrite 1)
\t\t\t(is_cdrom 0)
\t\t)
\t)
\t(device
\t\t(vif
\t\t\t(devid 0)
\t\t\t(mtu 1492)
\t\t\t(mac 00163e000029)
\t\t)
\t)
\t(device
\t\t(pci
\t\t\t(pci dev 0000:02:01.0@00)
\t\t)
\t)
)
"""


@pytest.mark.parametrize("name", ["mail1", "Web Server (2)", 'quo"ted'])
def test_the_listing_of_one_guest_is_read(name):
    guest = parse_guest(LISTING.replace("NAME", name).encode(), "g.sxp")
    assert (guest.name, guest.memory_mib, guest.maxmem_mib, guest.vcpus) == (name, 512, 1024, 2)
    assert (guest.root, guest.cmdline, guest.ramdisk) == ("/dev/xvda1", "root=/dev/xvda1 ro", None)
    assert [(disk.vdev, disk.target, disk.readonly) for disk in guest.disks] == [
        ("xvda1", "/dev/vg/root", False)
    ]
    assert [vif.mac for vif in guest.vifs] == ["00:16:3e:00:00:29"]
    assert any("pci = pci=dev 0000:02:01.0@00" in line for line in guest.left_behind)
    assert any("mtu of vif 0 = 1492" in line for line in guest.left_behind)
    assert "names no bridges" in guest.warnings[0]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (LISTING + LISTING, "holds 2 guests"),
        (LISTING.replace("(hvm 0)", "(hvm 1)"), "an HVM guest"),
        (LISTING.replace("(linux 0)", "what is this"), "no setting of xl's listing"),
    ],
)
def test_what_is_not_one_paravirtual_guest_is_a_usage_error(text, cause):
    with pytest.raises(Usage, match=cause) as caught:
        parse_guest(text.encode(), "g.sxp")
    assert "xm list" not in caught.value.way_out
