"""What Xen's settings meant that the KVM guest does not have, each with its reason.

Sources: xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5), xmdomain.cfg(5), and libxl's IDL
for the names that only `xl list -l` uses. A setting is either carried over, or it is Xen's own and means
nothing under KVM (all of these are told in one line), or it has its line: with the reason that stands in the
tables here, or, unknown, without one. So nothing that a configuration says is dropped without a word.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blocksync.foreign import shown
from orchestrate.xen.disks import XenDisk
from orchestrate.xen.values import Settings, Value
from orchestrate.xen.vifs import Vif

# Inside a value, such as vfb's vncpasswd=...: a plan and a terminal are no place for it.
_PASSWORD = re.compile(r"(\w*passw\w*\s*=)[^,\]]*", re.IGNORECASE)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OFF = frozenset(
    ["", "0", "false", "no", "off", "none", "default", "disabled", "<default>", "<unknown>", "(null)"]
)

CARRIED = _words("""name memory vcpus disk vif root extra cmdline bootloader type builder localtime""")
"""Settings that the plan is made of. `memory`, `vcpus` and the like go into it as they are."""

XENS_OWN = _words(
    """
    kernel ramdisk uuid device_model device_model_version device_model_override device_model_user
    device_model_stubdomain_override device_model_args device_model_args_pv
    device_model_args_hvm dm_restrict dm_kernel_path dm_memkb stubdomain_kernel stubdomain_cmdline
    stubdomain_ramdisk stubdomain_memory pae acpi apic nx hap oos viridian hpet vpt_align timer_mode
    nestedhvm nested_hvm altp2m altp2mhvm xen_platform_pci suppress_spurious_page_faults shadow_memory
    shadow_memkb videoram video_memkb claim_mode run_hotplug_scripts max_grant_frames max_maptrack_frames
    max_event_channels event_channels max_grant_version blkdev_start e820_host arch_arm arch_x86 xsdata
    platformdata console vmtrace_buf_kb paging_memkb on_soft_reset on_watchdog smbios_firmware acpi_firmware
    firmware bios boot stdvga vga serial parallel pvshim pvshim_path xend_config_format image_type
    start_time status backend_domid frontend_domid protocol
    """
)
"""Settings of Xen's own machinery: nothing under KVM answers to them, and no guest misses them."""

_SCREEN = (
    "the domain has a serial console and no screen; add <graphics> and <video> with `virsh edit` if needed"
)
_PASSED = "it is about devices of the Xen host that were passed through, and none of them comes along"
_HARDWARE = (
    "it gives the guest hardware of the Xen host, which does not come along: what the guest does with it "
    "stops, unless the domain gets the KVM host's own (virsh edit, <hostdev>)"
)
_USB = (
    "USB devices of the Xen host do not come along; plug them into the KVM host and add <hostdev> with "
    "`virsh edit`"
)
_SHARES = "the KVM host shares out its processors in its own way; see `virsh schedinfo`"
_PINNED = (
    "it names processors of the Xen host; see `virsh vcpupin` and `virsh numatune` for those of this one"
)
_LABEL = "it is a label of Xen's security module; under KVM SELinux or AppArmor confines the domain"
_SERVES = "other guests get their disks or cards from this one, and KVM knows no such driver domains"
_COMMAND_LINE = (
    "xm put it on the kernel's command line; a guest whose own files configure its network needs it no more, "
    "else add an ip= to boot.arguments"
)
_CPUID = (
    "the domain shows the guest the KVM host's processor; set <cpu> with `virsh edit` if it must be another"
)


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why a setting stays behind, and what to do; `nothing` are values that ask for nothing, lower case."""

    text: str
    nothing: frozenset[str] = _OFF


def _because(reason: str, names: str, nothing: frozenset[str] = _OFF) -> dict[str, _Reason]:
    return {name: _Reason(reason, nothing) for name in names.split()}


# A list of processors may be "0".
_ANY = frozenset(["", "all", "<default>", "(null)"])

REASONS: dict[str, _Reason] = {
    **_because(_HARDWARE, "pci irq irqs ioports iomem dtdev gfx_passthru"),
    **_because(
        _PASSED, "pci_permissive pci_msitranslate pci_power_mgmt pci_seize rdm passthrough rdm_mem_boundary"
    ),
    **_because(
        _SCREEN,
        "vfb vnc sdl spice vnclisten vncdisplay vncpasswd vncunused vncviewer vncconsole opengl display "
        "xauthority keymap vkb vdispl nographic",
    ),
    **_because(_USB, "usb usbdev usbctrl usbdevice usbversion vusb"),
    **_because("the domain has no sound card; add <sound> with `virsh edit` if needed", "vsnd soundhw"),
    **_because(
        "the guest's TPM stays on Xen, and what is sealed to it (a LUKS key) opens no more: add another key",
        "vtpm tpm",
    ),
    **_because(
        "a folder of the Xen host that is shared by 9p does not come along: copy it, and share it anew "
        "(virsh edit, <filesystem>)",
        "p9 9pfs xen_9pfs",
    ),
    **_because(
        "a channel to a program of the Xen host ends there; add <channel> with `virsh edit`", "channel"
    ),
    **_because("SCSI devices of the Xen host do not come along; add <hostdev> with `virsh edit`", "vscsi"),
    **_because(
        "KVM knows no such device of Xen's; see what in the guest uses it", "pvcalls pvcallsif virtio"
    ),
    **_because(_PINNED, "cpu cpus cpus_soft nodes vnuma vcpu_soft_affinity numa_placement nodemap", _ANY),
    **_because(
        _SHARES, "cpu_weight cap cpu_cap shares cpu_shares period slice latency extratime budget sched_params"
    ),
    **_because("it is a pool of the Xen host's processors; use cgroups or `virsh vcpupin`", "pool cpupool"),
    **_because(_CPUID, "cpuid msr cpu_policy msr_relaxed"),
    **_because(
        "the guest gets `memory_mib` of the plan and does not grow beyond it; raise it there if it was "
        "ballooned up",
        "maxmem",
    ),
    **_because(
        "the guest gets `vcpus` of the plan and no more can be plugged in; raise it there if the guest grew",
        "maxvcpus max_vcpus vcpu_avail",
    ),
    **_because("libvirt migrates any guest that its disk allows; nobody is kept from it", "nomigrate"),
    **_because("the guest's clock is KVM's (kvm-clock), not Xen's time stamp counter", "tsc_mode"),
    **_because(
        "the domain's clock starts at the host's UTC or local time; see <clock> (virsh edit) for an offset",
        "rtc_timeoffset",
    ),
    **_because(
        "it asks for what Xen's hypervisor offers, and KVM is another; see what the guest needs it for",
        "features",
    ),
    **_because(
        _LABEL, "seclabel init_seclabel device_model_stubdomain_seclabel access_control security ssidref"
    ),
    **_because(_SERVES, "driver_domain blkif netif tpmif usbif"),
    **_because(_COMMAND_LINE, "dhcp ip netmask gateway hostname interface"),
    **_because(
        "a guest on KVM boots from its disk, not from a root over NFS", "nfs_server nfs_root root_nfs"
    ),
    **_because(
        "it told Xen's boot loader which entry to boot: see that boot.arguments are those of that entry",
        "bootargs bootloader_args bootentry",
    ),
    **_because(
        "libvirt restarts or stops guests with its host in its own way; see `virsh autostart`",
        "on_xend_start on_xend_stop",
        _OFF | {"ignore"},
    ),
    **_because(
        "a guest that powers off stays off under KVM; set <on_poweroff> with `virsh edit`",
        "on_poweroff",
        _OFF | {"destroy"},
    ),
    **_because(
        "a guest that reboots starts again under KVM; set <on_reboot> with `virsh edit`",
        "on_reboot",
        _OFF | {"restart"},
    ),
    **_because(
        "libvirt neither starts a guest again that crashes nor keeps its core; see <on_crash> (virsh edit)",
        "on_crash",
        _OFF | {"destroy"},
    ),
}
"""Settings that somebody may rely on and that do not go over."""

_DEFAULT_NETWORK = (
    'it goes to libvirt\'s NAT network "default", where nobody reaches {whom} from outside: set `bridge` '
    "for it in the plan"
)
_SCRIPTS = {
    "vif-route": "Xen's host routed this card by itself",
    "vif-nat": "Xen's host translated this card's addresses",
    "vif-openvswitch": (
        "Xen's host plugged this card into Open vSwitch; the KVM host needs a bridge of this name, and "
        "<virtualport type='openvswitch'/> (virsh edit) if that is one of Open vSwitch's"
    ),
}
_PLAIN_SCRIPTS = frozenset(["vif-bridge"])
_VIF_REASONS = {
    "rate": "the domain's card is not limited; set <bandwidth> with `virsh edit`",
    "rate_bytes_per_interval": "the domain's card is not limited; set <bandwidth> with `virsh edit`",
    "backend": "another domain of Xen's served this card; on KVM the host's bridge does",
    "backend_domname": "another domain of Xen's served this card; on KVM the host's bridge does",
    "gatewaydev": "Xen's host routed this card through that device; the KVM host does not",
    "netdev": "it is a device of the Xen host",
    "mtu": "the domain's card has its bridge's MTU; set <mtu> with `virsh edit`",
    "accel": "the card is virtio's",
    "vlan": "the domain's card is in no VLAN; name a bridge that is, or set <vlan> with `virsh edit`",
}
_VIFS_OWN = _words(
    """
    type nictype devid uuid handle trusted backend_domid frontend_domid domid rate_interval_usecs
    coloft_forwarddev colo_compare xenvif hvm
    """
)
_DOM0 = frozenset(["0", "domain-0", "dom0"])
_DISK_REASONS = {
    "w!": (
        "another guest may write to this volume too; the copy is this guest's alone, and what the others "
        "write does not reach it"
    ),
    "no-discard": "the domain's disk passes the guest's discards on; see discard= (virsh edit)",
    "colo": "KVM mirrors no guest in this way",
}
_READ_ONLY = (
    "the KVM guest's one disk can be written everywhere; mount it read-only (`ro` in the guest's fstab) if "
    "that must stay so"
)


def of(settings: Settings, disks: Iterable[XenDisk], vifs: Iterable[Vif]) -> tuple[str, ...]:
    """A sentence for each setting that does not go over, in the order of the configuration."""
    told: list[str] = []
    own: list[str] = []
    for name, value in settings.values.items():
        if name in CARRIED or value.data in (None, (), {}):
            continue
        if name in XENS_OWN:
            own.append(name)
        elif name in REASONS:
            told += _of_known(settings, name, value, own)
        elif name not in settings.used:
            told.append(
                _left(value, name, value.shown(), "this setting is not known here: see what it was for")
            )
    told += [sentence for disk in disks for sentence in _of_disk(disk)]
    told += [sentence for index, vif in enumerate(vifs) for sentence in _of_vif(index, vif)]
    if own:
        told.append(
            f"{settings.source}: not carried over: {', '.join(own)}, because KVM does the same by "
            "itself or has no such thing; the guest boots its own kernel"
        )
    return tuple(told)


def _left(thing: Value | XenDisk | Vif, name: str, value: str, reason: str) -> str:
    if "passw" in name.lower():
        value = "..."
    value = _PASSWORD.sub(r"\1...", value)
    setting = f"{shown(name, 60)} = {shown(value, 80)}" if value else shown(name, 60)
    return f"{thing.place}: not carried over: {setting}, because {reason}"


def _of_known(settings: Settings, name: str, value: Value, own: list[str]) -> Iterator[str]:
    reason, written = REASONS[name], value.shown()
    if written.strip().lower() in reason.nothing or _is_what_it_gets(settings, name, value):
        own.append(name)
        return
    yield _left(value, name, written, reason.text)


def _is_what_it_gets(settings: Settings, name: str, value: Value) -> bool:
    """Whether a maximum is what the guest has anyway."""
    given = {"maxmem": "memory", "maxvcpus": "vcpus", "max_vcpus": "vcpus"}.get(name)
    if given is None:
        return False
    number = settings.number(given) or (value.number() if given == "memory" else 1)
    return value.number() <= number


def _of_disk(disk: XenDisk) -> Iterator[str]:
    for name, value in disk.others:
        word = value if name == "access" else name
        if disk.readonly and name == "access":
            yield _left(disk, f"access of {disk.vdev}", value, _READ_ONLY)
        elif word in _DISK_REASONS:
            yield _left(disk, f"{word} of {disk.vdev}", "", _DISK_REASONS[word])
        elif name == "script" and value not in {"drbd", "block-drbd", "block"}:
            reason = f"Xen attached {shown(disk.target, 80)} with it; the volume has to be there without it"
            yield _left(disk, f"script of {disk.vdev}", value, reason)


def _of_vif(index: int, vif: Vif) -> Iterator[str]:
    card = f"vif {index}"
    yield from _of_wiring(card, vif)
    if vif.ips and vif.bridge is not None:
        yield _left(
            vif,
            f"ip of {card}",
            " ".join(vif.ips),
            "Xen's script let the card use these addresses only, and libvirt lets it use any; the plan has "
            "them to announce, and <filterref filter='clean-traffic'/> (virsh edit) holds the card to them",
        )
    if vif.name:
        yield _left(
            vif,
            f"vifname of {card}",
            vif.name,
            "libvirt names its end of the card itself; what names it (a firewall, monitoring) has to follow",
        )
    if vif.model and vif.model not in {"netfront", "virtio", "virtio-net"}:
        yield _left(vif, f"model of {card}", vif.model, "the card is virtio's under KVM")
    for name, value in vif.others:
        if name in _VIFS_OWN or value.strip().lower() in _OFF or (name == "mtu" and value == "1500"):
            continue
        if name.startswith("backend") and value.lower() in _DOM0:
            continue
        reason = _VIF_REASONS.get(name, "this key is not known here: see what it was for")
        yield _left(vif, f"{name} of {card}", value, reason)


def _of_wiring(card: str, vif: Vif) -> Iterator[str]:
    """What connected the card to its network."""
    script = (vif.script or "").rpartition("/")[2]
    lost = _DEFAULT_NETWORK.format(whom=" and ".join(vif.ips) or "it")
    if script and script not in _PLAIN_SCRIPTS:
        how = _SCRIPTS.get(
            script, "a script of the Xen host's own connected this card; see there what it did"
        )
        yield _left(vif, f"script of {card}", vif.script or "", how if vif.bridge else f"{how}; {lost}")
    elif vif.bridge is None:
        yield _left(vif, card, "", f"no bridge is named, and Xen took its host's default; {lost}")
    if vif.trunk:
        reason = "it is Open vSwitch's notation; set <vlan> with `virsh edit`, or name a bridge in that VLAN"
        yield _left(vif, f"VLAN {vif.trunk} of {card}", "", reason)
