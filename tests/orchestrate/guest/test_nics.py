"""NIC names: what they are taken from and what keeps them."""

import pytest
from guest_files import FACTS, MAC, Files, after, text

from orchestrate.guest.facts import Facts, GuestNic
from orchestrate.guest.fixups.fixup import by_name, planned
from orchestrate.guest.fixups.nic_names import kernel_arguments, names

LINKS = {"/usr/lib/udev/rules.d/80-net-setup-link.rules": "# systemd\n"}
RULES = "/etc/udev/rules.d/70-persistent-net.rules"
OTHER = "00:16:3e:00:00:02"
RULE = 'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{}", KERNEL=="eth*", NAME="{}"\n'

CONFIGURATIONS = {
    "interfaces": {
        "/etc/network/interfaces": "auto lo\niface lo inet loopback\nauto enX0\niface enX0 inet dhcp\n"
    },
    "interfaces.d": {"/etc/network/interfaces.d/net": "allow-hotplug enX0\niface enX0 inet6 auto\n"},
    "netplan": {
        "/etc/netplan/01.yaml": "network:\n  ethernets:\n    enX0:\n      mtu: 1400\n  vlans:\n    enX7: {}\n"
    },
    "networkd": {"/etc/systemd/network/lan.network": "[Match]\nName=enX0\n\n[Network]\nDHCP=yes\n"},
    "ifcfg": {"/etc/sysconfig/network-scripts/ifcfg-enX0": "DEVICE=enX0\nBOOTPROTO=dhcp\n"},
    "suse": {"/etc/sysconfig/network/ifcfg-enX0": "BOOTPROTO='dhcp'\n"},
    "nm": {"/etc/NetworkManager/system-connections/a.nmconnection": "[connection]\ninterface-name=enX0\n"},
}


@pytest.mark.parametrize("files", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_the_one_configured_name_is_the_one_nics(files):
    assert names(Files(files), FACTS) == {MAC: "enX0"}


def test_a_given_name_counts_more_than_any_file():
    facts = Facts((), (GuestNic(MAC.upper(), "lan0"),))
    assert names(Files(CONFIGURATIONS["interfaces"]), facts) == {MAC: "lan0"}


def test_files_that_name_the_mac_say_which_nic_is_which():
    facts = Facts((), (GuestNic(MAC), GuestNic(OTHER)))
    ifcfg = "/etc/sysconfig/network-scripts/ifcfg-"
    by_address = {
        f"{ifcfg}eth0": f"DEVICE=eth0\nHWADDR={OTHER.upper()}\n",
        f"{ifcfg}eth1": f'DEVICE="eth1"\nHWADDR="{MAC}"\n',
    }
    assert names(Files(by_address), facts) == {MAC: "eth1", OTHER: "eth0"}
    assert names(Files({RULES: RULE.format(MAC, "dmz") + RULE.format(OTHER, "lan")}), facts) == {
        MAC: "dmz",
        OTHER: "lan",
    }
    link = f"[Match]\nMACAddress={OTHER}\n[Link]\nName=wan\n"
    assert names(Files({"/etc/systemd/network/1.link": link}), facts) == {MAC: None, OTHER: "wan"}


def test_several_nics_are_counted_in_the_kernels_order():
    facts = Facts((), (GuestNic(MAC), GuestNic(OTHER)))
    files = {
        "/etc/network/interfaces": "iface eth0 inet dhcp\niface eth1 inet dhcp\niface eth1:0 inet static\n"
    }
    assert names(Files(files), facts) == {MAC: "eth0", OTHER: "eth1"}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"/etc/network/interfaces": "iface ens3 inet dhcp\niface ens4 inet dhcp\n"},
        {"/etc/netplan/a.yaml": "network:\n  ethernets:\n    enX0:\n      match:\n        driver: vif\n"},
        {RULES: RULE.format(MAC, "../../etc/passwd")},
        {RULES: RULE.format(MAC, "%k")},
    ],
    ids=["nothing", "two", "matched", "hostile", "template"],
)
def test_where_files_do_not_tell_no_name_is_made_up(files):
    assert names(Files(files), FACTS) == {MAC: None}
    assert by_name("nic-names").edits(Files({**files, **LINKS}), FACTS) == ()


def test_one_name_is_never_given_to_two_nics():
    facts = Facts((), (GuestNic(MAC, "eth0"), GuestNic(OTHER, "eth0")))
    assert names(Files({}), facts) == {MAC: None, OTHER: None}


def test_systemd_gets_a_link_that_holds_for_the_pci_device_alone():
    guest = after("nic-names", {**CONFIGURATIONS["interfaces"], **LINKS})
    assert "[Match]\nMACAddress=00:16:3e:37:d0:70\nPath=*pci-*\n\n[Link]\nName=enX0\n" in (
        text(guest, "/etc/systemd/network/10-enX0.link") or ""
    )


def test_older_udev_gets_a_rule_in_the_file_it_remembers_nics_in():
    etch = "/etc/udev/rules.d/z25_persistent-net.rules"
    interfaces = {"/etc/network/interfaces": "iface eth0 inet dhcp\n"}
    expected = f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{MAC}", NAME="eth0"\n'
    assert text(after("nic-names", {**interfaces, etch: "# made\n"}), etch) == "# made\n" + expected
    squeeze = {**interfaces, "/etc/udev/rules.d/README": ""}
    assert text(after("nic-names", squeeze), RULES) == expected
    assert after("nic-names", interfaces).read(RULES) is None


def test_udev_forgets_foreign_nics_and_xens_bus_and_keeps_the_rest():
    xen = f'SUBSYSTEM=="net", DRIVERS=="vif", ATTR{{address}}=="{MAC}", NAME="eth0"\n'
    rules = "# made by udev\n" + RULE.format(OTHER, "eth1") + xen + RULE.format(MAC.upper(), "eth0")
    kept = "# made by udev\n" + RULE.format(MAC.upper(), "eth0")
    assert text(after("persistent-net", {RULES: rules}), RULES) == kept


def test_a_name_that_only_a_rule_for_xens_bus_knew_is_kept_by_a_rule_for_any():
    xen = f'SUBSYSTEM=="net", DRIVERS=="vif", ATTR{{address}}=="{MAC}", NAME="lan"\n'
    (*_, last) = planned(Files({RULES: xen}), FACTS, [by_name("nic-names"), by_name("persistent-net")])
    assert (last.content or b"").decode() == (
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{MAC}", NAME="lan"\n'
    )


def test_net_ifnames_is_asked_for_only_with_links_and_the_kernels_own_names():
    eth0 = {"/etc/network/interfaces": "iface eth0 inet dhcp\n"}
    assert kernel_arguments(Files({**eth0, **LINKS}), FACTS) == ("net.ifnames=0",)
    assert kernel_arguments(Files(eth0), FACTS) == ()
    assert kernel_arguments(Files({**CONFIGURATIONS["interfaces"], **LINKS}), FACTS) == ()
    assert kernel_arguments(Files(LINKS), FACTS) == ()
