"""Which accelerator a guest gets on this host: KVM where it really runs guests, else QEMU's own emulation.

That /dev/kvm exists and opens proves little: under some nested hypervisors real-mode code runs and the
first exception of a 64-bit kernel never returns. So the probe boots `probe.S`, a boot sector that does
what a kernel does first (long mode, exceptions, system calls) and reports each step on the serial port.
"""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from blocksync.errors import Usage
from blocksync.hosts import programs
from orchestrate.kvm.qemu import emulator

Accelerator = Literal["kvm", "tcg"]
DomainType = Literal["kvm", "qemu"]

VARIABLE = "XEN2KVM_ACCEL"
PROBE_SECONDS = 3.0

# `probe.S` assembled, without the padding and the signature that make it a sector.
_PROBE_CODE = bytes.fromhex(
    """
    fafc31c08ed88ec08ed0bc007cbaf803b052eebf0010b9002031c0f3abc70600100720c70600200730c706003087000f
    0116207d66b8200000000f22e066b8001000000f22d866b9800000c00f32660d010100000f3066b8010000800f22c0ea
    647c080066b810008ed88ed0bc007c000066baf803b04ceeb8f07c0000668904253040000066c7042532400000080066
    c7042534400000008e0f011c25267d0000cc66baf803b049eeb8001000000f22d831c00fa20f01f8b9820000c0b8e17c
    000031d20f30ffc931c0ba080010000f30b9df7c000041bb02000000480f070f0566baf803b04bee66baf400eef4ebfd
    48cf660f1f4400000000000000000000ffff0000009aaf00ffff00000092cf00ffff000000f2cf00ffff000000faaf00
    2700f87c00003f000040000000000000
    """
)
PROBE_SECTOR = _PROBE_CODE.ljust(510, b"\0") + b"\x55\xaa"
# One letter for each step that worked: real mode, long mode, interrupt, kernel entered from ring 3.
_PROBE_STEPS = b"RLIK"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether KVM runs guests here, and why (not), in words for the user."""

    works: bool
    reason: str


def choose(wanted: str = "auto") -> Accelerator:
    """The accelerator for a guest: "kvm" or "tcg".

    `wanted` is "auto" (probe KVM once, take it when it works), "kvm" or "tcg". The environment variable
    XEN2KVM_ACCEL, with the same values, wins over it. Usage for any other word, Failed when "auto" finds
    no emulator to probe with.
    """
    forced = os.environ.get(VARIABLE, "")
    word, thing = (forced, VARIABLE) if forced else (wanted, "accelerator")
    match word:
        case "kvm":
            return "kvm"
        case "tcg":
            return "tcg"
        case "auto":
            return "kvm" if kvm_verdict().works else "tcg"
    raise Usage(thing, f"{word!r} is no accelerator", "use auto, kvm or tcg")


def domain_type(accelerator: Accelerator) -> DomainType:
    """The libvirt domain type that uses `accelerator`."""
    return "kvm" if accelerator == "kvm" else "qemu"


@cache
def kvm_verdict(device: Path = Path("/dev/kvm")) -> Verdict:
    """Boot the probe under KVM, for at most 3 s; asked once in the life of a process."""
    if not device.exists():
        return Verdict(False, f"{device} does not exist")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Verdict(False, f"{device}: {error.strerror}")
    return run_probe("kvm")


def run_probe(accelerator: Accelerator, seconds: float = PROBE_SECONDS) -> Verdict:
    """Boot the probe sector under `accelerator`; it must finish all its steps within `seconds`."""
    # In memory: whatever ends this process, nothing of it is left.
    with os.fdopen(os.memfd_create("probe", os.MFD_CLOEXEC), "wb", buffering=0) as disk:
        disk.write(PROBE_SECTOR)
        try:
            ended = programs.run(
                _probe_command(accelerator, disk.fileno()),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
                pass_fds=(disk.fileno(),),
            )
            steps = ended.stdout
            cause = ended.stderr.decode(errors="replace").strip() or f"QEMU ended with {ended.returncode}"
        except subprocess.TimeoutExpired as error:
            steps = error.stdout or b""
            cause = f"no answer within {seconds:g} s"
    if steps == _PROBE_STEPS:
        return Verdict(True, f"a probe guest ran under {accelerator}")
    reached = f"{len(steps)} of {len(_PROBE_STEPS)} steps"
    return Verdict(False, f"a probe guest under {accelerator} did {reached}: {cause}")


def _probe_command(accelerator: Accelerator, disk: int) -> list[str]:
    return [
        emulator(),
        *("-accel", accelerator),
        *("-machine", "pc"),
        *("-cpu", "host" if accelerator == "kvm" else "max"),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        *("-display", "none"),
        *("-m", "16"),
        *("-drive", f"file=/proc/self/fd/{disk},format=raw,if=ide"),
        *("-serial", "stdio"),
        # The probe's last instruction writes here, which ends QEMU.
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
    ]
