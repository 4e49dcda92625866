"""The guest's own names for its NICs, kept by MAC.

A paravirtual NIC is eth0, or enX0 on systemd 251 and later; a virtio one would be ens3 or enp1s0, and the
guest's network configuration would not know it. Where udev names links by systemd.link(5) files a .link says
the name, elsewhere a udev rule does.

Before systemd 240 a NIC that was renamed in the initramfs is not renamed again, and an initramfs that is
older than the .link renames it. With net.ifnames=0 on the kernel's command line the initramfs leaves it
alone; a .link's Name= holds all the same. `kernel_arguments` asks for it where the names are the kernel's
own (eth0): a systemd that calls a NIC enX0 is new enough to rename again.
"""

import re
from collections.abc import Iterable

from orchestrate.guest.facts import Facts, GuestNic
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies, with_added
from orchestrate.guest.files.reading import Reading
from orchestrate.guest.fixups.persistent_net import PATHS, names_nic, remembered
from orchestrate.guest.network import other_networks

NAME = "nic-names"
REASON = "NICs keep the names that the guest knows, by MAC, because its network configuration goes by name"

_LINKS = "/etc/systemd/network"
_NETWORK_SCRIPTS = "/etc/sysconfig/network-scripts"
_UDEV = ("/lib/udev/rules.d", "/usr/lib/udev/rules.d")
# systemd's udev since 209, and from 197 to 208 (eudev to this day).
_BY_LINK, _BY_SLOT = "80-net-setup-link.rules", "80-net-name-slot.rules"
_RULES = "/etc/udev/rules.d"
_FROM_KERNEL = re.compile(r"eth[0-9]+")
_NIC = re.compile(r"(?:eth|enX)[0-9]+|en(?:[opsx][0-9a-zA-Z]+)")
_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,15}")
_LINK = re.compile(r"\s*(MACAddress|Name)\s*=\s*(\S+)\s*")
_INTERFACES = re.compile(r"\s*(?:iface|auto|allow-hotplug|allow-auto)\s+(.+)")
_NETWORK_NAME = re.compile(r"\s*Name\s*=\s*(.+)")
_CONNECTION_NAME = re.compile(r"\s*interface-name\s*=\s*(\S+)\s*")
_IFCFG = re.compile(r"\s*(DEVICE|HWADDR)\s*=\s*[\"']?([^\"'\s]+)[\"']?\s*")
_YAML_KEY = re.compile(r"(\s*)[\"']?([\w.-]+)[\"']?:.*")


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """A .link or a rule for each NIC whose name is known; none for those of which it is not."""
    known = {mac: name for mac, name in names(guest, facts).items() if name}
    if not known:
        return ()
    return _link_edits(guest, known) if _has_links(guest) else _rule_edits(guest, known)


def names(guest: Reading, facts: Facts) -> dict[str, str | None]:
    """What the guest calls each of `facts.nics`, by MAC in lower case; None where its files do not tell.

    A name that was given comes first, then what names the MAC: .link files, udev's rules, ifcfg's HWADDR.
    Else the one name that the guest configures is the one NIC's; of several, the kernel counts in order.
    """
    by_mac = _ifcfg_addresses(guest) | remembered(guest) | _linked(guest)
    candidates = _configured(guest)
    found: dict[str, str | None] = {}
    for index, nic in enumerate(facts.nics):
        mac = nic.mac.lower()
        found[mac] = nic.name or by_mac.get(mac) or _inferred(index, facts.nics, candidates)
    return {mac: name if _usable(name, found) else None for mac, name in found.items()}


def kernel_arguments(guest: Reading, facts: Facts) -> tuple[str, ...]:
    """("net.ifnames=0",) where an initramfs would rename a NIC before its .link is seen; else ()."""
    known = [name for name in names(guest, facts).values() if name]
    from_kernel = bool(known) and all(_FROM_KERNEL.fullmatch(name) for name in known)
    return ("net.ifnames=0",) if from_kernel and _has_links(guest) else ()


def warnings(guest: Reading, facts: Facts, arguments: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each NIC that udev may rename, because the guest's files do not tell its name."""
    if not _renames(guest) or "net.ifnames=0" in arguments:
        return ()
    return tuple(
        f"nic {mac}: the guest's files do not tell its name, udev may call it ens3 or the like, and its "
        'network may not come up: say `name = "eth0"` (or what it is) in the plan\'s nic'
        for mac, name in names(guest, facts).items()
        if name is None
    )


def _usable(name: str | None, found: dict[str, str | None]) -> bool:
    """Whether it is one that the kernel takes, and one NIC's alone."""
    return name is not None and bool(_NAME.fullmatch(name)) and list(found.values()).count(name) == 1


def _linked(guest: Reading) -> dict[str, str]:
    """Name by MAC in the guest's own .link files."""
    found = {}
    for file in guest.names(_LINKS):
        matches = map(_LINK.fullmatch, bodies(guest.read(f"{_LINKS}/{file}") or b""))
        values = {match[1]: match[2] for match in matches if match}
        if file.endswith(".link") and values.keys() >= {"MACAddress", "Name"}:
            found[values["MACAddress"].lower()] = values["Name"]
    return found


def _has_links(guest: Reading) -> bool:
    """udev's rules apply .link files since systemd 209."""
    return any(_BY_LINK in guest.names(folder) for folder in _UDEV)


def _renames(guest: Reading) -> bool:
    """Whether udev gives a NIC another name than the kernel's. A file of its own in /etc stops a rule."""
    there = {name for folder in _UDEV for name in guest.names(folder)}
    own = set(guest.names(_RULES))
    return any(
        rules in there and not (rules in own and not (guest.read(f"{_RULES}/{rules}") or b"").strip())
        for rules in (_BY_LINK, _BY_SLOT)
    )


def _link_edits(guest: Reading, known: dict[str, str]) -> tuple[Edit, ...]:
    changed = []
    for mac, name in known.items():
        path = f"{_LINKS}/10-{name}.link"
        # Bridges and VLANs borrow a NIC's MAC; the path of a PCI device they have not.
        content = f"# {REASON}\n[Match]\nMACAddress={mac}\nPath=*pci-*\n\n[Link]\nName={name}\n".encode()
        if guest.read(path) != content:
            changed.append(Edit(path, content, REASON))
    return tuple(changed)


def _rule_edits(guest: Reading, known: dict[str, str]) -> tuple[Edit, ...]:
    """At the end of the file in which this udev remembers NICs; none without udev (busybox's mdev), where
    the kernel's names stay.
    """
    if not any(guest.names(folder) for folder in (_RULES, *_UDEV)):
        return ()
    path = next((path for path in reversed(PATHS) if guest.read(path) is not None), PATHS[0])
    before = guest.read(path) or b""
    rules = [
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{mac}", NAME="{name}"'
        for mac, name in known.items()
        if not any(names_nic(body, mac) for body in bodies(before))
    ]
    return (Edit(path, with_added(before, rules), REASON),) if rules else ()


def _inferred(index: int, nics: tuple[GuestNic, ...], candidates: tuple[str, ...]) -> str | None:
    if len(nics) == 1 and len(candidates) == 1:
        return candidates[0]
    counted = [name for name in candidates if name in (f"eth{index}", f"enX{index}")]
    return counted[0] if len(counted) == 1 else None


def _configured(guest: Reading) -> tuple[str, ...]:
    """Every NIC's name in the guest's network configuration, whichever kind it has."""
    found: set[str] = set()
    for folder, ending, pattern in (
        ("/etc/network/interfaces.d", "", _INTERFACES),
        (_LINKS, ".network", _NETWORK_NAME),
        ("/etc/NetworkManager/system-connections", "", _CONNECTION_NAME),
    ):
        for name in guest.names(folder):
            if name.endswith(ending):
                found |= _matches(guest.read(f"{folder}/{name}"), pattern)
    found |= _matches(guest.read("/etc/network/interfaces"), _INTERFACES)
    found |= {name for name, _ in _ifcfg(guest)}
    for name in guest.names("/etc/netplan"):
        if name.endswith((".yaml", ".yml")):
            found |= _netplan(guest.read(f"/etc/netplan/{name}") or b"")
    found |= {name for name, _ in other_networks.given(guest)}
    return tuple(sorted(name for name in found if _NIC.fullmatch(name)))


def _matches(content: bytes | None, pattern: re.Pattern[str]) -> set[str]:
    matches = [pattern.fullmatch(body) for body in bodies(content or b"")]
    return {word for match in matches if match for word in match[1].split()}


def _ifcfg(guest: Reading) -> tuple[tuple[str, str | None], ...]:
    """(DEVICE, HWADDR in lower case or None) of each ifcfg file (RHEL, and SUSE by the file's name)."""
    found = []
    for folder in (_NETWORK_SCRIPTS, "/etc/sysconfig/network"):
        for name in guest.names(folder):
            if name.startswith("ifcfg-"):
                matches = map(_IFCFG.fullmatch, bodies(guest.read(f"{folder}/{name}") or b""))
                values = {match[1]: match[2] for match in matches if match}
                mac = values.get("HWADDR")
                found.append((values.get("DEVICE", name.removeprefix("ifcfg-")), mac and mac.lower()))
    return tuple(found)


def _ifcfg_addresses(guest: Reading) -> dict[str, str]:
    return {mac: name for name, mac in _ifcfg(guest) if mac and _NIC.fullmatch(name)}


def _netplan(content: bytes) -> set[str]:
    """Keys right under `ethernets:`; none when some are matched by other means than their name."""
    lines = [body for body in bodies(content) if body.strip() and not body.lstrip().startswith("#")]
    found: set[str] = set()
    inside: int | None = None
    level: int | None = None
    for body in lines:
        key = _YAML_KEY.fullmatch(body)
        indent = len(body) - len(body.lstrip())
        if inside is not None and indent <= inside:
            inside, level = None, None
        if key and key[2] == "ethernets":
            inside = indent
        elif key and inside is not None:
            level = indent if level is None else level
            if indent == level:
                found.add(key[2])
            elif key[2] == "match":
                return set()
    return found
