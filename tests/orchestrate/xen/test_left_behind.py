"""Nothing that a configuration says is dropped without a word, in whichever notation it says it."""

import pytest

from orchestrate.xen.guest import parse_guest
from orchestrate.xen.left_behind import CARRIED, REASONS, XENS_OWN

BASE = """\
name = 'web1'
memory = 256
vcpus = 2
disk = ['phy:/dev/vg/root,xvda1,w']
vif = ['mac=00:16:3e:00:00:01,bridge=br0']
"""


def told(text: str) -> list[str]:
    return [
        each.partition("not carried over: ")[2] for each in parse_guest(text.encode(), "g.cfg").left_behind
    ]


def told_of(setting: str) -> list[str]:
    return told(BASE + setting)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("pci = ['00:0c.0']", ("pci = 00:0c.0", "<hostdev>")),
        ("vfb = ['vnc=1']", ("vfb = vnc=1", "<graphics>")),
        ("usbdev = ['type=hostdev,hostbus=1']", ("usbdev", "USB")),
        ("vtpm = ['backend=tpm']", ("vtpm", "LUKS")),
        ("p9 = ['tag=share,path=/srv']", ("p9", "<filesystem>")),
        ("cpus = '0'", ("cpus = 0", "vcpupin")),
        ("cpu_weight = 512", ("cpu_weight = 512", "schedinfo")),
        ("maxmem = 512", ("maxmem = 512", "memory_mib")),
        ("on_crash = 'restart'", ("on_crash = restart", "crashes")),
        ("nomigrate = 1", ("nomigrate", "migrates")),
        ("ioports = ['2f8-2ff']", ("ioports", "hardware")),
        ("driver_domain = 1", ("driver_domain", "no such driver domains")),
        ("dhcp = 'dhcp'", ("dhcp", "ip=")),
        ("bootloader_args = ['--entry=2']", ("bootloader_args", "boot.arguments")),
        ("monitoring_by = ['nagios', 3]", ("monitoring_by = nagios, 3", "not known here")),
    ],
)
def test_a_setting_that_somebody_relies_on_has_its_line_and_its_reason(setting, words):
    (line,) = told_of(setting)
    assert ", because " in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "setting", ["vfb = None", "pci = []", "localtime = 1", "tsc_mode = 'default'\nusb = 0", "maxmem = 256"]
)
def test_what_asks_for_nothing_has_no_line_of_its_own(setting):
    assert not [line for line in told_of(setting) if " = " in line]


def test_xens_own_settings_share_one_line():
    (line,) = told_of("kernel = '/boot/vmlinuz'\nuuid = 'x'\non_reboot = 'restart'\nnomigrate = 0")
    assert line.startswith("kernel, uuid, on_reboot, nomigrate, because")


def test_a_variable_of_the_file_itself_is_not_lost_where_a_setting_took_it():
    assert told("vg = 'vg7'\n" + BASE.replace("/dev/vg/", "/dev/%s/").replace(",w'", ",w' % vg")) == []
    assert [line for line in told_of("owner = 'bob'") if "owner = bob" in line]


@pytest.mark.parametrize(
    ("vif", "words"),
    [
        ("bridge=br0,rate=10Mb/s", ("rate of vif 0 = 10Mb/s", "<bandwidth>")),
        ("ip=192.0.2.17 192.0.2.18,script=vif-route", ("vif-route", "NAT", "192.0.2.17 and 192.0.2.18")),
        ("ip=192.0.2.17,script=vif-nat", ("vif-nat", "NAT network", "set `bridge`")),
        ("bridge=br0,script=/etc/xen/scripts/vif-own", ("vif-own", "of the Xen host's own")),
        ("ip=192.0.2.17", ("no bridge is named", "192.0.2.17")),
        ("bridge=br0,ip=192.0.2.17", ("ip of vif 0 = 192.0.2.17", "clean-traffic")),
        ("bridge=br0,vifname=web1.0", ("vifname of vif 0 = web1.0", "firewall")),
        ("bridge=br0,model=e1000", ("model of vif 0 = e1000", "virtio")),
        ("bridge=br0,backend=netdom", ("backend of vif 0 = netdom", "another domain")),
        ("bridge=br0,gatewaydev=eth1", ("gatewaydev", "routed")),
        ("bridge=ovs0.100:200,script=vif-openvswitch", ("VLAN 100:200", "<vlan>")),
        ("bridge=br0,colour=red", ("colour of vif 0 = red", "not known here")),
    ],
)
def test_what_a_card_loses_is_said(vif, words):
    lines = told(BASE.replace("mac=00:16:3e:00:00:01,bridge=br0", f"mac=00:16:3e:00:00:01,{vif}"))
    assert any(all(word in line for word in words) for line in lines), lines


@pytest.mark.parametrize("vif", ["bridge=br0,script=vif-bridge,devid=0,type=vif,mtu=1500", "bridge=br0"])
def test_a_bridged_card_loses_nothing(vif):
    assert told(BASE.replace("mac=00:16:3e:00:00:01,bridge=br0", f"mac=00:16:3e:00:00:01,{vif}")) == []


def test_a_bridge_of_open_vswitch_is_named_without_its_vlans():
    guest = parse_guest(BASE.replace("br0", "ovs0:5,script=vif-openvswitch").encode(), "g.cfg")
    assert (guest.vifs[0].bridge, guest.vifs[0].trunk) == ("ovs0", "5")
    plain = parse_guest(BASE.replace("br0", "xenbr0.100").encode(), "g.cfg")
    assert plain.vifs[0].bridge == "xenbr0.100"


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        ("phy:/dev/vg/root,xvda1,w!", ("w! of xvda1", "another guest")),
        ("phy:/dev/vg/root,xvda1,r", ("access of xvda1 = r", "fstab")),
        ("/dev/vg/root,raw,xvda1,rw,no-discard", ("no-discard of xvda1", "discards")),
        ("script=block-san,vdev=xvda1,target=/dev/vg/root", ("script of xvda1 = block-san", "without it")),
    ],
)
def test_what_a_disk_loses_is_said(disk, words):
    (line,) = told(BASE.replace("phy:/dev/vg/root,xvda1,w", disk))
    for word in words:
        assert word in line


def test_devices_of_a_json_listing_are_not_lost():
    text = """[{"config": {"c_info": {"type": "pv", "name": "j"}, "b_info": {"max_vcpus": 4,
        "avail_vcpus": [0], "target_memkb": 262144, "sched_params": {"weight": 512}, "type.pv": {}},
        "disks": [{"pdev_path": "/dev/vg/a", "vdev": "xvda1", "format": "raw", "readwrite": 1}],
        "pcidevs": [{"bus": 2, "dev": 1}], "vtpms": [{"uuid": "x"}], "new_things": [1]}}]"""
    lines = told(text)
    for word in ("pci = bus=2 dev=1", "vtpm", "cpu_weight = 512", "maxvcpus = 4", "new_things = 1"):
        assert any(line.startswith(word) for line in lines), word


def test_devices_of_xends_listing_are_not_lost():
    text = """(domain (name s) (memory 256) (cpus ((0 1))) (image (linux (kernel /k) (videoram 4)))
        (device (vbd (uname phy:/dev/vg/a) (dev xvda1) (mode w)))
        (device (pci (dev (bus 0x02) (slot 0x01)))) (device (vtpm (instance 1))))"""
    lines = told(text)
    for word in ("cpus = 0 1", "pci = dev", "vtpm"):
        assert any(line.startswith(word) for line in lines), word


def test_no_setting_stands_in_two_tables():
    assert not set(REASONS) & (CARRIED | XENS_OWN)
    assert not CARRIED & XENS_OWN


@pytest.mark.parametrize(
    "setting", ["vfb = ['type=vnc,vncpasswd=topsecret,keymap=de']", "vncpasswd = 'topsecret'"]
)
def test_a_password_is_in_no_line(setting):
    (line,) = told_of(setting)
    assert "vncpasswd" in line
    assert "topsecret" not in line
