"""The libvirt domain of a migrated guest.

Source of the format: libvirt's "Domain XML format" (formatdomain) and its RELAX NG schema, domain.rng.
"""

import re
import stat
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from blocksync.errors import Usage
from orchestrate.kvm.accel import DomainType

Arch = Literal["x86_64", "i686"]
Clock = Literal["utc", "localtime"]
DiskBus = Literal["virtio", "sata", "ide"]
NicModel = Literal["virtio", "e1000"]

_TARGET_OF_BUS: dict[DiskBus, str] = {"virtio": "vda", "sata": "sda", "ide": "hda"}
_CPU_MODE: dict[DomainType, str] = {"kvm": "host-model", "qemu": "maximum"}
# virt-install's choices for Linux guests.
_TIMERS = (
    {"name": "rtc", "tickpolicy": "catchup"},
    {"name": "pit", "tickpolicy": "delay"},
    {"name": "hpet", "present": "no"},
)
# libvirt's network for guests without a bridge of their own.
_DEFAULT_NETWORK = "default"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
# IFNAMSIZ less its NUL; the characters are those of domain.rng's deviceName that a bridge can have.
_BRIDGE = re.compile(r"[A-Za-z0-9_.\-:]{1,15}")
# Control characters (XML 1.0 forbids most of them, libvirt's names and paths the rest), lone surrogates
# (how Python shows bytes that are not UTF-8) and the two non-characters that XML 1.0 leaves out.
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class DomainNic:
    """A network card: `mac` as six colon-separated octets; without `bridge` it joins libvirt's network
    "default"."""

    mac: str
    bridge: str | None = None


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """What the domain is made of.

    `disk` is the target, an existing block device or regular file, which decides between libvirt's disk
    types "block" and "file"; symbolic links such as /dev/vg0/guest stay as they are. `disk_bus` and
    `nic_model` are for guests whose kernel has no virtio. Without `uuid` libvirt makes one up. What the
    serial console says is added to the file `console_log`.
    """

    name: str
    memory_mib: int
    vcpus: int
    disk: Path
    nics: tuple[DomainNic, ...] = ()
    accel: DomainType = "kvm"
    arch: Arch = "x86_64"
    clock: Clock = "utc"
    disk_bus: DiskBus = "virtio"
    nic_model: NicModel = "virtio"
    uuid: str | None = None
    console_log: Path | None = None


def domain_xml(spec: DomainSpec) -> str:
    """The domain as libvirt XML, with a newline at its end; the same spec gives the same text.

    Usage when a value cannot be part of a domain (a name with a slash or a control character, a MAC that
    is none or is multicast, a disk that is neither block device nor regular file).
    """
    _check(spec)
    domain = ET.Element("domain", type=spec.accel)
    _leaf(domain, "name", spec.name)
    if spec.uuid is not None:
        _leaf(domain, "uuid", str(UUID(spec.uuid)))
    _leaf(domain, "memory", str(spec.memory_mib), unit="MiB")
    _leaf(domain, "vcpu", str(spec.vcpus), placement="static")
    _add_platform(domain, spec)
    _add_clock(domain, spec.clock)
    _leaf(domain, "on_poweroff", "destroy")
    _leaf(domain, "on_reboot", "restart")
    _leaf(domain, "on_crash", "destroy")
    _add_devices(domain, spec)
    ET.indent(domain, "  ")
    return ET.tostring(domain, encoding="unicode") + "\n"


def _add_platform(domain: ET.Element, spec: DomainSpec) -> None:
    boot = ET.SubElement(domain, "os")
    # "pc", not "q35": its virtio devices are transitional, so kernels from before virtio 1.0 find them,
    # and it has the IDE bus.
    _leaf(boot, "type", "hvm", arch=spec.arch, machine="pc")
    ET.SubElement(boot, "boot", dev="hd")
    features = ET.SubElement(domain, "features")
    for feature in ("acpi", "apic") + (("pae",) if spec.arch == "i686" else ()):
        ET.SubElement(features, feature)
    ET.SubElement(domain, "cpu", mode=_CPU_MODE[spec.accel])


def _add_clock(domain: ET.Element, offset: Clock) -> None:
    clock = ET.SubElement(domain, "clock", offset=offset)
    for timer in _TIMERS:
        ET.SubElement(clock, "timer", timer)


def _add_devices(domain: ET.Element, spec: DomainSpec) -> None:
    devices = ET.SubElement(domain, "devices")
    _add_disk(devices, spec)
    for nic in spec.nics:
        _add_nic(devices, nic, spec.nic_model)
    _add_console(devices, spec.console_log)
    ET.SubElement(devices, "memballoon", model="virtio")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _leaf(rng, "backend", "/dev/urandom", model="random")


def _add_disk(devices: ET.Element, spec: DomainSpec) -> None:
    kind = _disk_type(spec.disk)
    disk = ET.SubElement(devices, "disk", type=kind, device="disk")
    # Without the host's page cache: a later pass reads the same device directly.
    ET.SubElement(disk, "driver", name="qemu", type="raw", cache="none", io="native", discard="unmap")
    ET.SubElement(disk, "source", {"dev" if kind == "block" else "file": str(spec.disk.absolute())})
    ET.SubElement(disk, "target", dev=_TARGET_OF_BUS[spec.disk_bus], bus=spec.disk_bus)


def _add_nic(devices: ET.Element, nic: DomainNic, model: NicModel) -> None:
    interface = ET.SubElement(devices, "interface", type="bridge" if nic.bridge else "network")
    ET.SubElement(interface, "mac", address=nic.mac.lower())
    if nic.bridge:
        ET.SubElement(interface, "source", bridge=nic.bridge)
    else:
        ET.SubElement(interface, "source", network=_DEFAULT_NETWORK)
    ET.SubElement(interface, "model", type=model)


def _add_console(devices: ET.Element, log: Path | None) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    if log is not None:
        ET.SubElement(serial, "log", file=str(log.absolute()), append="on")
    ET.SubElement(serial, "target", port="0")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="serial", port="0")


def _leaf(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _disk_type(path: Path) -> Literal["block", "file"]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Usage(path, f"not usable as a disk: {error.strerror}", "create the target first") from error
    if stat.S_ISBLK(mode):
        return "block"
    if stat.S_ISREG(mode):
        return "file"
    raise Usage(path, "neither a block device nor a regular file", "give the target disk of the plan")


def _check(spec: DomainSpec) -> None:
    _check_name(spec.name)
    _check_text(str(spec.disk), "path of the disk")
    _check_text(str(spec.console_log or ""), "path of the console's log")
    for value, what in ((spec.memory_mib, "memory in MiB"), (spec.vcpus, "number of vcpus")):
        if value < 1:
            raise Usage(spec.name, f"{what} is {value}", "give a number above zero")
    for nic in spec.nics:
        _check_nic(spec.name, nic)
    if spec.uuid is not None:
        try:
            UUID(spec.uuid)
        except ValueError as error:
            raise Usage(spec.name, f"uuid {spec.uuid!r} is none", "leave it out or run uuidgen") from error


def _check_name(name: str) -> None:
    _check_text(name, "name of the guest")
    if not name.strip():
        raise Usage("guest", "its name is empty", "give it a name in the plan")
    if "/" in name:
        raise Usage(name, "libvirt allows no '/' in a name", "give another name in the plan")


def _check_text(text: str, what: str) -> None:
    bad = _NOT_IN_XML.search(text)
    if bad:
        cause = f"the {what} has the character U+{ord(bad[0]):04X}, which a domain's XML cannot hold"
        raise Usage(repr(text), cause, "rename it")


def _check_nic(guest: str, nic: DomainNic) -> None:
    if not _MAC.fullmatch(nic.mac):
        raise Usage(guest, f"{nic.mac!r} is no MAC address", "write six octets, such as 00:16:3e:12:34:56")
    if int(nic.mac[:2], 16) & 1:
        raise Usage(guest, f"{nic.mac} is a multicast address", "the first octet of a card's MAC is even")
    if nic.bridge is not None and not _BRIDGE.fullmatch(nic.bridge):
        raise Usage(guest, f"{nic.bridge!r} is no name of a bridge", "use a name that `ip link` shows")
