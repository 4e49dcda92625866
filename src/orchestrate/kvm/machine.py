"""A guest booted under QEMU from its disk alone, with its serial console in our hands.

Used by the rehearsal and by tests; production guests run under libvirt.
"""

import os
import re
import signal
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pexpect

from blocksync.errors import Failed, Usage
from blocksync.foreign import shown
from blocksync.progress import Tell, untold
from blocksync.voice import voice
from orchestrate.kvm import bridge
from orchestrate.kvm.accel import Accelerator
from orchestrate.kvm.confinement import confinement
from orchestrate.kvm.console_text import PIECE, WINDOW, Lookout, last_lines, told_end
from orchestrate.kvm.domain import DiskBus, NicModel
from orchestrate.kvm.qemu import emulator
from orchestrate.kvm.transcript import Transcript

_STOP_SECONDS = 10.0
# For what is still on the way once QEMU has ended.
_LAST_SECONDS = 1.0
# How often the one who waits is told what the console says.
_TOLD_EVERY = 0.5
# We put it on its bridge ourselves.
_NO_SCRIPTS = "script=no,downscript=no"
_NIC_DEVICE: dict[NicModel, str] = {"virtio": "virtio-net-pci", "e1000": "e1000"}


@dataclass(frozen=True, slots=True)
class Fatal:
    """A console message after which a boot does not go on: what to look for and what to tell the user."""

    pattern: str
    meaning: str
    way_out: str


FATAL: tuple[Fatal, ...] = (
    Fatal(
        r"No bootable device",
        "the BIOS found nothing to boot on the disk",
        "check that the bootloader is in the MBR",
    ),
    Fatal(
        r"grub rescue>",
        "GRUB did not find its own files",
        "check the partition and the folder that core.img was made for",
    ),
    Fatal(
        r"Minimal BASH-like line editing",
        "GRUB found no grub.cfg",
        "check that grub.cfg is in GRUB's folder",
    ),
    Fatal(
        r"ALERT!\s+\S+\s+does not exist",
        "the initramfs did not find the root filesystem",
        "check root= and that the initramfs has the disk's driver",
    ),
    Fatal(
        r"Kernel panic - not syncing[^\r\n]*",
        "the kernel panicked",
        "check root=, the initramfs and the kernel's drivers",
    ),
    Fatal(
        r"You are in (?:emergency|rescue) mode|Entering emergency mode"
        r"|Give root password for maintenance|Cannot open access to console",
        "the guest stopped in emergency mode",
        "check its fstab: a filesystem that is listed did not come up",
    ),
)


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What to boot.

    `disk` is a raw image, a block device (`disk_format` "raw") or a qcow2 file; QEMU's locks are on, so it
    cannot be open elsewhere. With `snapshot` the guest's writes go to a temporary file and are dropped.
    Each of `macs` is a card on a network that answers DHCP and leads nowhere, or on `bridge`; without any
    there is no network. `cpu` is QEMU's model; None is "host" under KVM and "max" under TCG. A reboot ends
    the machine unless it `may_reboot`.
    """

    disk: Path
    disk_format: Literal["raw", "qcow2"] = "raw"
    memory_mib: int = 1024
    vcpus: int = 1
    accelerator: Accelerator = "kvm"
    macs: tuple[str, ...] = ()
    bridge: str | None = None
    disk_bus: DiskBus = "virtio"
    nic_model: NicModel = "virtio"
    cpu: str | None = None
    snapshot: bool = False
    may_reboot: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """Console text that matched, and the seconds from power-on until it was there."""

    text: str
    seconds: float


class Machine:
    """Context manager: powered on inside the block, and gone after it whatever happens.

    `log` receives the console's raw bytes as they are read (while waiting, and at the end), with what QEMU
    itself has to say among them; of very much it keeps the beginning and the end.
    """

    def __init__(self, spec: MachineSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self._started = 0.0
        self._transcript: Transcript | None = None
        self._lookout = Lookout()
        self._console: pexpect.spawn[bytes] | None = None

    def __enter__(self) -> Self:
        command, *arguments = argv = qemu_command(self.spec)
        voice.starts(argv)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._transcript = Transcript(self.log)
        self._started = time.monotonic()
        self._console = pexpect.spawn(
            command,
            arguments,
            timeout=None,
            echo=False,
            maxread=PIECE,
            preexec_fn=_keep_newlines,
        )
        try:
            self._plug_in()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def wait_for(
        self, pattern: str, timeout: float, *, fatal: Sequence[Fatal] = FATAL, tell: Tell = untold
    ) -> Seen:
        """Wait until the regular expression `pattern` comes on the console, for `timeout` seconds at most.

        Looks at what came since the last match; of very much, at the end of it. `tell` is told what the
        console says meanwhile. Failed, with the last lines of the console, when it does
        not come in time, when QEMU ends, or as soon as one of `fatal` comes first. Usage when `pattern` is no
        regular expression.
        """
        signs = [compiled(pattern), *(compiled(sign.pattern) for sign in fatal)]
        self._lookout.begin()
        deadline = time.monotonic() + timeout
        told = 0.0
        while (found := self._lookout.find(signs)) is None:
            if time.monotonic() > told + _TOLD_EVERY:
                told = time.monotonic()
                tell(self._lookout.last_line(), of=timeout)
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(min(left, _TOLD_EVERY)):
                ended = f"did not come within {timeout:g} s" if left <= 0 else "QEMU ended before it came"
                raise self._failure(f"waited for {pattern!r} on the console: {ended}", "")
        number, text = found
        seen = Seen(shown(text.decode(errors="replace")), self.seconds())
        if number > 0:
            sign = fatal[number - 1]
            raise self._failure(f"{sign.meaning} ({seen.text!r})", sign.way_out)
        return seen

    def wait_for_end(self, timeout: float) -> float:
        """Wait until the guest has powered itself off (a reboot ends it too); seconds since power-on."""
        self._running()
        deadline = time.monotonic() + timeout
        while self._read(max(0.0, min(deadline - time.monotonic(), _TOLD_EVERY))):
            if time.monotonic() > deadline:
                raise self._failure(f"the guest did not power off within {timeout:g} s", "")
        self.close()
        return self.seconds()

    def send_line(self, text: str) -> None:
        """Type `text` and Return on the serial console."""
        self._running().send(text.encode() + b"\r")

    def seconds(self) -> float:
        """Seconds since power-on."""
        return time.monotonic() - self._started

    def last_lines(self) -> list[str]:
        """The newest lines of the console that are not empty, bounded, without terminal escapes."""
        return [] if self._transcript is None else last_lines(self._transcript.end(WINDOW))

    def close(self) -> None:
        """End the guest as pulling the plug does: QEMU closes the disk and goes; killed when it does not."""
        console, self._console = self._console, None
        if console is not None:
            self._end(console)
        if self._transcript is not None:
            self._transcript.close()

    def _end(self, console: "pexpect.spawn[bytes]") -> None:
        if console.isalive():
            console.kill(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        # A QEMU blocked on a full console could not end.
        while console.isalive() and time.monotonic() < deadline:
            if not self._hear(console, 0.1):
                time.sleep(0.02)
        last = time.monotonic() + _LAST_SECONDS
        while self._hear(console, 0.1) and time.monotonic() < last:
            pass
        console.close(force=True)

    def _read(self, seconds: float) -> bool:
        """Hear the console for a while; whether there may be more to hear."""
        return self._hear(self._running(), seconds)

    def _hear(self, console: "pexpect.spawn[bytes]", seconds: float) -> bool:
        try:
            said = console.read_nonblocking(PIECE, seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self._lookout.hear(said)
        if self._transcript is not None:
            self._transcript.write(said)
        return True

    def _plug_in(self) -> None:
        if self.spec.bridge is not None:
            for number in range(len(self.spec.macs)):
                bridge.plug_in(_tap(number), self.spec.bridge)

    def _running(self) -> "pexpect.spawn[bytes]":
        if self._console is None:
            raise Failed(self.spec.disk, "the machine is not running", "use it inside its with block")
        return self._console

    def _failure(self, cause: str, way_out: str) -> Failed:
        read_log = f"the whole console is in {self.log}"
        return Failed(
            self.spec.disk,
            f"{cause}; {self.seconds():.1f} s after power-on{told_end(self.last_lines())}",
            f"{way_out}; {read_log}" if way_out else read_log,
        )


def qemu_command(spec: MachineSpec) -> list[str]:
    """The emulator's argument list: BIOS, one disk, serial console on standard input and output."""
    return [
        emulator(),
        # Without graphics the BIOS speaks on the serial port, and so does GRUB: their errors are seen.
        *("-machine", "pc,graphics=off"),
        *("-accel", spec.accelerator),
        *("-cpu", spec.cpu or ("host" if spec.accelerator == "kvm" else "max")),
        *("-m", str(spec.memory_mib)),
        *("-smp", str(spec.vcpus)),
        "-nodefaults",
        "-no-user-config",
        *confinement(spec.accelerator).arguments,
        *(() if spec.may_reboot else ("-no-reboot",)),
        *("-display", "none"),
        # Ctrl-C typed on the console is the guest's.
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        *("-device", "virtio-rng-pci"),
        *_disk_arguments(spec),
        *_network_arguments(spec),
    ]


def _disk_arguments(spec: MachineSpec) -> list[str]:
    path = str(spec.disk.absolute()).replace(",", ",,")
    snapshot = "on" if spec.snapshot else "off"
    drive = f"if=none,id=disk,format={spec.disk_format},file={path},file.locking=on,snapshot={snapshot}"
    return ["-drive", drive, *_disk_device(spec.disk_bus)]


def _disk_device(bus: DiskBus) -> list[str]:
    match bus:
        case "virtio":
            return ["-device", "virtio-blk-pci,drive=disk,bootindex=1"]
        case "ide":
            return ["-device", "ide-hd,drive=disk,bootindex=1"]
        case "sata":
            return ["-device", "ahci,id=sata", "-device", "ide-hd,bus=sata.0,drive=disk,bootindex=1"]


def _network_arguments(spec: MachineSpec) -> list[str]:
    if not spec.macs:
        return ["-nic", "none"]
    arguments: list[str] = []
    for number, mac in enumerate(spec.macs):
        leads = "user,restrict=on" if spec.bridge is None else f"tap,ifname={_tap(number)},{_NO_SCRIPTS}"
        arguments += ["-netdev", f"{leads},id=net{number}"]
        # No option ROM: nothing boots from this network.
        device = f"{_NIC_DEVICE[spec.nic_model]},netdev=net{number},mac={mac},romfile="
        arguments += ["-device", device]
    return arguments


def _tap(number: int) -> str:
    """The host's end of a card's cable. QEMU makes it, and it goes with QEMU."""
    return f"x2k{os.getpid()}n{number}"


def _keep_newlines() -> None:
    """In the child, before QEMU: the terminal adds no carriage returns, so the log has the guest's bytes."""
    attributes = termios.tcgetattr(1)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(1, termios.TCSANOW, attributes)


def compiled(pattern: str) -> re.Pattern[bytes]:
    """A console's pattern. Raises Usage when it is no regular expression."""
    try:
        return re.compile(pattern.encode())
    except re.error as error:
        raise Usage(repr(pattern), f"no regular expression: {error}", "escape it as `re` expects") from error
