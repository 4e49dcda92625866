"""OpenRC, Arch, Slackware, dhcpcd and OpenWrt: the card keeps its name, and its addresses are known."""

import pytest
from guest_files import FACTS, MAC, Files, after, text

from orchestrate.guest.fixups.nic_names import names, warnings
from orchestrate.guest.network.addresses import configured

LINKS = {"/lib/udev/rules.d/80-net-setup-link.rules": "x\n"}
OPENRC = {
    "/etc/conf.d/net": '# config_eth9="x"\nconfig_eth0="192.0.2.50/24"\nroutes_eth0="default via 192.0.2.1"\n'
}
NETWORKS = {
    "openrc": (OPENRC, ("192.0.2.50",)),
    "openrc-array": (
        {
            "/etc/conf.d/net": 'config_eth0=( "192.0.2.50 netmask 255.255.255.0 brd 192.0.2.255"\n'
            '  "2001:db8::5/64" )\nconfig_eth0+=("192.0.2.51/24")\n'
        },
        ("192.0.2.50", "2001:db8::5", "192.0.2.51"),
    ),
    "openrc-lines": (
        {"/etc/conf.d/net": 'config_eth0="192.0.2.50/24\n192.0.2.51/24"\n'},
        ("192.0.2.50", "192.0.2.51"),
    ),
    "openrc-2003": ({"/etc/conf.d/net": 'iface_eth0="192.0.2.50 broadcast 192.0.2.255"\n'}, ("192.0.2.50",)),
    "openrc-dhcp": ({"/etc/conf.d/net": "\n", "/etc/runlevels/default/net.eth0": ""}, ()),
    "netctl": (
        {"/etc/netctl/lan": "Interface=eth0\nIP=static\nAddress=('192.0.2.50/24')\nGateway='192.0.2.1'\n"},
        ("192.0.2.50",),
    ),
    "arch-rc.conf": (
        {"/etc/rc.conf": "interface=eth0\naddress=192.0.2.50\nnetmask=255.255.255.0\n"},
        ("192.0.2.50",),
    ),
    "slackware": (
        {"/etc/rc.d/rc.inet1.conf": 'IPADDR[0]="192.0.2.50"\nIPADDR[1]=""\nUSE_DHCP[1]=""\n'},
        ("192.0.2.50",),
    ),
    "dhcpcd": ({"/etc/dhcpcd.conf": "interface eth0\nstatic ip_address=192.0.2.50/24\n"}, ("192.0.2.50",)),
    "openwrt": (
        {"/etc/config/network": "config interface lan\n option ifname eth0\n option ipaddr '192.0.2.50'\n"},
        ("192.0.2.50",),
    ),
}


@pytest.mark.parametrize(("files", "addresses"), NETWORKS.values(), ids=NETWORKS.keys())
def test_the_card_has_the_name_and_the_addresses_of_the_guests_files(files, addresses):
    guest = Files(files)
    assert names(guest, FACTS) == {MAC: "eth0"}
    assert configured(guest, FACTS) == {MAC: addresses}


def test_a_guest_with_openrc_and_systemds_udev_gets_a_link():
    link = text(after("nic-names", {**OPENRC, **LINKS}), "/etc/systemd/network/10-eth0.link")
    assert link is not None
    assert f"MACAddress={MAC}" in link


def test_a_guest_with_eudev_gets_a_rule_though_it_has_none_yet():
    files = {**OPENRC, "/lib/udev/rules.d/80-net-name-slot.rules": "x\n"}
    rules = text(after("nic-names", files), "/etc/udev/rules.d/70-persistent-net.rules")
    assert rules is not None
    assert MAC in rules
    assert 'NAME="eth0"' in rules


def test_busyboxs_mdev_leaves_the_kernels_names_and_gets_no_rule():
    assert text(after("nic-names", OPENRC), "/etc/udev/rules.d/70-persistent-net.rules") is None
    assert warnings(Files({"/etc/mdev.conf": ""}), FACTS, ()) == ()


def test_where_udev_renames_and_no_file_tells_the_name_somebody_is_told():
    (warning,) = warnings(Files(LINKS), FACTS, ())
    assert MAC in warning
    assert "may not come up" in warning
    assert warnings(Files(LINKS), FACTS, ("net.ifnames=0",)) == ()
    assert warnings(Files({**LINKS, **OPENRC}), FACTS, ()) == ()
    stopped = {**LINKS, "/etc/udev/rules.d/80-net-setup-link.rules": ""}
    assert warnings(Files(stopped), FACTS, ()) == ()
