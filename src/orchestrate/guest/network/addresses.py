"""The addresses that the guest's own network files give its NICs.

Formats: interfaces(5), systemd.network(5), netplan(5), NetworkManager's keyfiles (nm-settings-keyfile(5)),
the ifcfg files of RHEL (sysconfig.txt of initscripts) and SUSE (ifcfg(5)), and those that `other_networks`
reads. What is leased, or given by a script, stands in none of them.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.lines import bodies
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups.nic_names import names
from orchestrate.guest.network import other_networks

_IFACE = re.compile(r"\s*(iface|auto|allow-\S+|mapping|source|source-directory|no-\S+)\s+(\S+).*")
_ADDRESS = re.compile(r"\s*address\s+(\S+)\s*")
_SECTION = re.compile(r"\s*\[(\w+)\]\s*")
_SETTING = re.compile(r"\s*([\w.-]+)\s*=\s*(.*?)\s*")
_IFCFG_ADDRESS = re.compile(r"IPADDR\w*|IPV6ADDR")
_KEYFILE_ADDRESS = re.compile(r"address(?:es)?\d*")
_COPIES = ("~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave")


@dataclass(frozen=True, slots=True)
class Given:
    """Addresses as written, and whose they are: a NIC's by its MAC if there are MACs, else by its name, which
    may be a pattern of the shell's.
    """

    names: tuple[str, ...]
    macs: tuple[str, ...]
    addresses: tuple[str, ...]

    def is_for(self, mac: str, name: str | None) -> bool:
        """Whether the NIC gets them."""
        if self.macs:
            return mac.lower() in [each.lower() for each in self.macs]
        return name is not None and any(fnmatchcase(name, pattern) for pattern in self.names)


def configured(guest: Reading, facts: Facts) -> dict[str, tuple[str, ...]]:
    """The IP addresses of each of `facts.nics`, without their prefixes, in the files' order, by MAC."""
    called = names(guest, facts)
    given = tuple(_given(guest))
    return {
        nic.mac: tuple(
            dict.fromkeys(
                address
                for each in given
                if each.is_for(nic.mac, called.get(nic.mac.lower()))
                for address in _valid(each.addresses)
            )
        )
        for nic in facts.nics
    }


def _given(guest: Reading) -> Iterator[Given]:
    for path in ("/etc/network/interfaces", *_files(guest, "/etc/network/interfaces.d", "")):
        yield from _interfaces(guest.read(path) or b"")
    for path in _files(guest, "/etc/systemd/network", ".network"):
        yield _networkd(guest.read(path) or b"")
    for path in (*_files(guest, "/etc/netplan", ".yaml"), *_files(guest, "/etc/netplan", ".yml")):
        yield from _netplan(guest.read(path) or b"")
    for path in _files(guest, "/etc/NetworkManager/system-connections", ""):
        yield _keyfile(guest.read(path) or b"")
    for folder in ("/etc/sysconfig/network-scripts", "/etc/sysconfig/network"):
        for path in _files(guest, folder, ""):
            if path.startswith(f"{folder}/ifcfg-") and not path.endswith(_COPIES):
                yield _ifcfg(path.rpartition("/ifcfg-")[2], guest.read(path) or b"")
    for name, found in other_networks.given(guest):
        yield Given((name,), (), found)


def _files(guest: Reading, folder: str, ending: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in guest.names(folder) if name.endswith(ending))


def _valid(texts: Iterable[str]) -> Iterator[str]:
    """Those that are addresses; the others are variables, or what the guest itself would complain of."""
    for text in texts:
        try:
            yield str(ipaddress.ip_interface(text).ip)
        except ValueError:
            continue


def _interfaces(content: bytes) -> Iterator[Given]:
    """`eth0:1` is one more address of eth0."""
    name: str | None = None
    for body in bodies(content):
        stanza, address = _IFACE.fullmatch(body), _ADDRESS.fullmatch(body)
        if stanza:
            name = stanza[2].partition(":")[0] if stanza[1] == "iface" else None
        elif address and name:
            yield Given((name,), (), (address[1],))


def _settings(content: bytes) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of each setting, in order."""
    section = ""
    for body in bodies(content):
        heading, setting = _SECTION.fullmatch(body), _SETTING.fullmatch(body)
        if heading:
            section = heading[1]
        elif setting:
            yield section, setting[1], setting[2]


def _networkd(content: bytes) -> Given:
    found = tuple(_settings(content))
    return Given(
        _words(value for section, key, value in found if (section, key) == ("Match", "Name")),
        _words(value for section, key, value in found if (section, key) == ("Match", "MACAddress")),
        tuple(v for section, key, v in found if section in {"Network", "Address"} and key == "Address"),
    )


def _keyfile(content: bytes) -> Given:
    """An address may be followed by its gateway."""
    found = tuple(_settings(content))
    return Given(
        tuple(v for section, key, v in found if (section, key) == ("connection", "interface-name")),
        tuple(v for section, key, v in found if (section, key) == ("ethernet", "mac-address")),
        tuple(
            address.split(",")[0].strip()
            for section, key, value in found
            if section in {"ipv4", "ipv6"} and _KEYFILE_ADDRESS.fullmatch(key)
            for address in value.split(";")
        ),
    )


def _words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in value.split())


def _ifcfg(name: str, content: bytes) -> Given:
    found = {key: value.strip("\"'") for _, key, value in _settings(content)}
    if found.get("ONBOOT", "yes").lower() == "no":
        return Given((), (), ())
    mac = found.get("HWADDR")
    return Given(
        (found.get("DEVICE", name).partition(":")[0],),
        (mac,) if mac else (),
        tuple(value for key, value in found.items() if _IFCFG_ADDRESS.fullmatch(key)),
    )


def _netplan(content: bytes) -> Iterator[Given]:
    """What is under `ethernets:`, NIC by NIC."""
    nics: dict[str, tuple[list[str], list[str]]] = {}
    for place, value in _yaml(content):
        if place[:2] != ("network", "ethernets") or len(place) < 4:
            continue
        macs, addresses = nics.setdefault(place[2], ([], []))
        if place[3:] == ("addresses",):
            addresses += [_plain(each) for each in value.strip("[]").split(",")]
        elif place[3:] == ("match", "macaddress"):
            macs.append(_plain(value))
    for name, (macs, addresses) in nics.items():
        yield Given((name,), tuple(macs), tuple(addresses))


def _yaml(content: bytes) -> Iterator[tuple[tuple[str, ...], str]]:
    """The scalars, one-line lists and list items of a YAML file in block style, with the keys above them."""
    above: list[tuple[int, str]] = []
    for body in bodies(content):
        text = re.sub(r"(?:^|\s)#.*", "", body).rstrip()
        indent, text = len(text) - len(text.lstrip()), text.lstrip()
        is_item = text.startswith("- ")
        # An item may stand as far out as the key of its list.
        while above and (above[-1][0] > indent or (above[-1][0] == indent and not is_item)):
            above.pop()
        place = tuple(key for _, key in above)
        if is_item:
            yield place, text[2:]
            continue
        key, _, value = text.partition(":")
        if value.strip():
            yield (*place, _plain(key)), value.strip()
        elif text:
            above.append((indent, _plain(key)))


def _plain(scalar: str) -> str:
    """Without quotes, and without the colon of an item that has options of its own."""
    return scalar.strip().removesuffix(":").strip("\"'")
