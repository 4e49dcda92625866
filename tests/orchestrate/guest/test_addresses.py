"""Addresses: read from whichever network files the guest has."""

import ipaddress

import pytest
from guest_files import FACTS, MAC, Files
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrate.guest.facts import Facts, GuestNic
from orchestrate.guest.network.addresses import configured

OTHER = "00:16:3e:00:00:02"
TWO = Facts((), (GuestNic(MAC, "eth0"), GuestNic(OTHER, "eth1")))

INTERFACES = """
    auto lo eth0
    iface lo inet loopback
        address 127.0.0.1
    # address 192.0.2.99
    iface eth0 inet static
        address 192.0.2.7
        netmask 255.255.255.0
        gateway 192.0.2.1
    iface eth0 inet6 static
        address 2001:db8::7/64
    iface eth0:1 inet static
        address 192.0.2.8/24
    auto eth1
    iface eth1 inet dhcp
"""
NETPLAN = """
    network:
      version: 2
      ethernets:
        eth0:   # the only one
          addresses:
          - 192.0.2.7/24
          - "2001:db8::7/64"
          - 192.0.2.8/24:
              label: second
          routes:
            - to: default
              via: 192.0.2.1
          nameservers:
            addresses: [192.0.2.53]
      bridges:
        br0:
          addresses: [192.0.2.77/24]
"""
NETWORKD = """
    [Match]
    Name=eth0 enX0

    [Network]
    Address=192.0.2.7/24
    Address=2001:db8::7/64
    Gateway=192.0.2.1

    [Address]
    Address=192.0.2.8/24
    Label=second
"""
KEYFILE = """
    [connection]
    interface-name=eth0

    [ipv4]
    method=manual
    address1=192.0.2.7/24,192.0.2.1
    address2=192.0.2.8/24
    dns=192.0.2.53;

    [ipv6]
    addresses=2001:db8::7/64,2001:db8::1;
"""
IFCFG = """
    DEVICE="eth0"
    IPADDR=192.0.2.7
    PREFIX=24
    IPADDR1="192.0.2.8"
    IPV6ADDR=2001:db8::7/64
    GATEWAY=192.0.2.1
"""
FILES = {
    "ifupdown": {"/etc/network/interfaces": INTERFACES},
    "ifupdown's folder": {"/etc/network/interfaces.d/eth0": INTERFACES},
    "netplan": {"/etc/netplan/01-lan.yaml": NETPLAN},
    "networkd": {"/etc/systemd/network/lan.network": NETWORKD},
    "NetworkManager": {"/etc/NetworkManager/system-connections/lan.nmconnection": KEYFILE},
    "ifcfg of RHEL": {"/etc/sysconfig/network-scripts/ifcfg-eth0": IFCFG},
    "ifcfg of SUSE": {
        "/etc/sysconfig/network/ifcfg-eth0": "IPADDR='192.0.2.7/24'\nIPADDR_b='192.0.2.8/24'\n"
        "IPADDR_c='2001:db8::7/64'\nSTARTMODE='auto'\n"
    },
}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES.keys())
def test_every_kind_of_file_tells_the_nic_s_addresses_and_nobody_else_s(files):
    found = configured(Files(files), TWO)
    assert set(found[MAC]) == {"192.0.2.7", "192.0.2.8", "2001:db8::7"}
    assert found[OTHER] == ()


def test_files_that_name_the_mac_are_about_that_nic():
    files = {
        "/etc/systemd/network/a.network": f"[Match]\nMACAddress={OTHER.upper()}\n"
        "[Network]\nAddress=192.0.2.2/24\n",
        "/etc/sysconfig/network-scripts/ifcfg-lan": f"HWADDR={MAC.upper()}\nIPADDR=192.0.2.1\n",
        "/etc/netplan/a.yaml": "network:\n  ethernets:\n    lan:\n      match:\n        macaddress: "
        f"'{OTHER}'\n      addresses: [192.0.2.3/24, 192.0.2.4/24]\n",
    }
    assert configured(Files(files), TWO) == {
        MAC: ("192.0.2.1",),
        OTHER: ("192.0.2.2", "192.0.2.3", "192.0.2.4"),
    }


def test_the_one_name_that_is_configured_is_the_one_nic_s():
    alone = {"/etc/network/interfaces": "iface enX0 inet static\n  address 192.0.2.7/24\n"}
    assert configured(Files(alone), FACTS) == {MAC: ("192.0.2.7",)}


def test_copies_leases_variables_and_interfaces_that_stay_down_give_none():
    folder = "/etc/sysconfig/network-scripts"
    files = {
        f"{folder}/ifcfg-eth0.bak": "DEVICE=eth0\nIPADDR=192.0.2.5\n",
        f"{folder}/ifcfg-eth1": "DEVICE=eth1\nONBOOT=no\nIPADDR=192.0.2.6\n",
        "/etc/network/interfaces": "iface eth0 inet static\n  address $ADDRESS\n",
        "/etc/systemd/network/a.network": "[Match]\nName=*\n[Network]\nDHCP=yes\n",
    }
    assert configured(Files(files), TWO) == {MAC: (), OTHER: ()}


lines = st.sampled_from(
    [line for files in FILES.values() for content in files.values() for line in content.splitlines()]
)


@settings(max_examples=100, deadline=None)
@given(
    path=st.sampled_from([path for files in FILES.values() for path in files]),
    content=st.lists(st.one_of(lines, st.text(max_size=12)), max_size=12).map("\n".join),
)
def test_whatever_the_files_hold_what_is_found_is_an_address(path, content):
    for addresses in configured(Files({path: content.encode("utf-8", "replace")}), TWO).values():
        for address in addresses:
            assert str(ipaddress.ip_address(address)) == address
