"""Network files of OpenRC, Arch, Slackware, dhcpcd and OpenWrt: the NICs that they name, and their addresses.

Sources: Gentoo's net.example (config_NAME, iface_NAME before 2004; net.NAME in /etc/init.d and
/etc/runlevels), netctl.profile(5) and Arch's rc.conf, Slackware's rc.inet1.conf(5), dhcpcd.conf(5), OpenWrt's
/etc/config/network.
"""

import re
from collections.abc import Iterator

from orchestrate.guest.files.lines import bodies, decoded
from orchestrate.guest.files.reading import Reading

_OPENRC = re.compile(
    r"^\s*(?:config|iface|ifconfig|routes|dhcp|modules|mac|mtu)_(\w+)\+?=(\([^)]*\)|\"[^\"]*\"|'[^']*'|\S*)",
    re.MULTILINE,
)
_ADDRESSED = re.compile(r"^\s*(?:config|iface|ifconfig)_")
_RUN_LEVEL = re.compile(r"net\.(\w+)")
_SETTING = re.compile(r"^\s*(\w+)\+?=(\([^)]*\)|\"[^\"]*\"|'[^']*'|\S*)", re.MULTILINE)
_SLACKWARE = re.compile(r"\s*(IFNAME|IPADDRS?|USE_DHCP)\[(\d+)\]=[\"']?([^\"'#]*)[\"']?.*")
_DHCPCD = re.compile(r"\s*(interface\s+|static\s+ip_address=)(\S+).*")
_OPENWRT = re.compile(r"\s*(config|option|list)\s+(\w+)(?:\s+['\"]?([^'\"]*)['\"]?)?\s*")
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]*[.:][0-9A-Fa-f.:]+(?:/\d+)?")

Given = tuple[str, tuple[str, ...]]


def given(guest: Reading) -> tuple[Given, ...]:
    """The name of each NIC, with its addresses as they are written; one may come more than once."""
    return (
        *_openrc(guest),
        *_netctl(guest),
        *_rc_conf(guest.read("/etc/rc.conf") or b""),
        *_slackware(guest.read("/etc/rc.d/rc.inet1.conf") or b""),
        *_dhcpcd(guest.read("/etc/dhcpcd.conf") or b""),
        *_openwrt(guest.read("/etc/config/network") or b""),
    )


def _openrc(guest: Reading) -> Iterator[Given]:
    for name in guest.names("/etc/conf.d"):
        if not re.fullmatch(r"net(\.\w+)?", name):
            continue
        content = _COMMENT.sub("", decoded(guest.read(f"/etc/conf.d/{name}") or b""))
        for match in _OPENRC.finditer(content):
            yield match[1], _addresses(match[2]) if _ADDRESSED.match(match[0]) else ()
    folders = ("/etc/init.d", *(f"/etc/runlevels/{level}" for level in guest.names("/etc/runlevels")))
    for folder in folders:
        for match in filter(None, map(_RUN_LEVEL.fullmatch, guest.names(folder))):
            yield match[1], ()


def _netctl(guest: Reading) -> Iterator[Given]:
    for folder in ("/etc/netctl", "/etc/network.d"):
        for name in guest.names(folder):
            found = _shell(guest.read(f"{folder}/{name}") or b"")
            nic = found.get("Interface", found.get("INTERFACE"))
            if nic:
                yield nic, _addresses(f"{found.get('Address', '')} {found.get('ADDR', '')}")


def _rc_conf(content: bytes) -> Iterator[Given]:
    """Arch's before systemd: `interface=eth0` and `address=`, or `eth0="eth0 ADDRESS netmask ..."`."""
    found = _shell(content)
    if "interface" in found:
        yield found["interface"], _addresses(found.get("address", ""))
    for name in found.get("INTERFACES", "").strip("()").split():
        if name in found:
            yield name, _addresses(found[name])[:1]


def _slackware(content: bytes) -> Iterator[Given]:
    named: dict[str, str] = {}
    for match in filter(None, map(_SLACKWARE.fullmatch, bodies(content))):
        key, index, value = match[1], match[2], match[3].strip()
        if key == "IFNAME":
            named[index] = value
        elif value and value.lower() != "no":
            yield named.get(index) or f"eth{index}", _addresses(value)


def _dhcpcd(content: bytes) -> Iterator[Given]:
    nic = ""
    for match in filter(None, map(_DHCPCD.fullmatch, bodies(content))):
        if match[1].startswith("interface"):
            nic = match[2]
            yield nic, ()
        elif nic:
            yield nic, _addresses(match[2])


def _openwrt(content: bytes) -> Iterator[Given]:
    nic = ""
    for match in filter(None, map(_OPENWRT.fullmatch, bodies(content))):
        if match[1] == "config":
            nic = ""
        elif match[2] in {"ifname", "device"} and match[3]:
            nic = match[3].split()[0]
            yield nic, ()
        elif match[2] == "ipaddr" and nic:
            yield nic, _addresses(match[3] or "")


def _shell(content: bytes) -> dict[str, str]:
    text = _COMMENT.sub("", decoded(content))
    return {match[1]: match[2].strip("\"'") for match in _SETTING.finditer(text)}


def _addresses(text: str) -> tuple[str, ...]:
    """The addresses among words; what follows `netmask`, `brd` and the like is none of the NIC's."""
    words = re.sub(r"[()\"';,]", " ", text).split()
    before = ("netmask", "broadcast", "brd", "via", "gw", "gateway", "peer")
    return tuple(
        word
        for index, word in enumerate(words)
        if _ADDRESS.fullmatch(word) and (index == 0 or words[index - 1] not in before)
    )
