"""A real Xen host under QEMU's software emulation: dom0, its LVM, and a paravirtual guest, by ssh."""

import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dom0_image import boot_files
from lab_places import CACHE, GROUP, GUEST, HOSTS, key, tool
from qemu_monitor import NETWORK, Monitor

MEMORY_MIB = 2432
BOOT_SECONDS = 400
DISKS = ("dom0", GROUP)

_XEN = "com1=115200 console=com1 dom0_mem=1536M,max:1536M noreboot"
_LINUX = "root=/dev/vda rw console=hvc0 net.ifnames=0"
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class State:
    """A machine at a moment: its disks (dom0's and the volume group's), and its memory, if it ran."""

    disks: tuple[Path, Path]
    memory: Path | None = None


def base() -> State:
    """The machine as built, switched off."""
    dom0, group = (CACHE / f"{name}.img" for name in DISKS)
    return State((dom0, group))


def running() -> State:
    """The machine as kept by the build: dom0 is up, and so is the guest."""
    dom0, group = (CACHE / f"{name}.qcow2" for name in DISKS)
    return State((dom0, group), CACHE / "memory")


def is_built() -> bool:
    """Whether `make lab` ran to its end."""
    state = running()
    return state.memory is not None and state.memory.exists()


class XenLab:
    """A Xen host that runs. Made by `xen_lab`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports
        self.console_log = folder / "console.log"
        self.ssh_config = folder / "ssh_config"
        self.monitor_path = folder / "monitor"
        self._process = process
        self._group_disk = folder / f"{GROUP}.qcow2"
        self._write_ssh_config()

    def ssh(
        self,
        argv: Sequence[str],
        *,
        host: str = "dom0",
        check: bool = True,
        input: bytes | None = None,  # noqa: A002
        seconds: float = 300,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on dom0, or in the guest. Its output is bytes; a failure raises with all of it."""
        command = ["ssh", "-F", str(self.ssh_config), host, "--", shlex.join(argv)]
        stdin = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, **stdin)
        if check and done.returncode:
            printed = (done.stdout + done.stderr).decode(errors="replace")
            raise RuntimeError(f"{host}: {shlex.join(argv)} ended with {done.returncode}:\n{printed}")
        return done

    def shell(self, script: str, *, host: str = "dom0", seconds: float = 300) -> str:
        """Run a shell script there, which has to succeed; what it printed."""
        return self.ssh(["sh", "-ec", script], host=host, seconds=seconds).stdout.decode()

    def run(self, argv: Sequence[str]) -> tuple[int, bytes]:
        """A `blocksync.hosts.runner.Run` for dom0."""
        done = self.ssh(argv, check=False)
        return done.returncode, done.stderr if done.returncode else done.stdout

    def wait_for(self, host: str, seconds: float = BOOT_SECONDS) -> None:
        """Wait until a host answers by ssh."""
        deadline = time.monotonic() + seconds
        while self.ssh(["true"], host=host, check=False).returncode:
            if self._process.poll() is not None:
                raise RuntimeError(f"the machine ended:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{host} does not answer:\n{self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def start_guest(self) -> None:
        """Start the guest on Xen, and wait until it answers."""
        # The toolstack gives each of its block scripts 40 s, too few for a host that is still starting.
        self.ssh(["systemctl", "is-system-running", "--wait"], check=False)
        self.shell(f"xl create /etc/xen/{GUEST}.cfg")
        self.wait_for(GUEST)

    def stop_guest(self) -> None:
        """Shut the guest down as its operator would, and wait for its end."""
        self.shell(f"xl shutdown -w {GUEST}")
        self._forget(GUEST)

    def prefer_dom0(self) -> None:
        """Let dom0 have the processor when it wants it: the witness takes all there is."""
        self.shell("xl sched-credit2 -d Domain-0 -w 65535")

    def guest_runs(self) -> bool:
        """Whether Xen has the guest."""
        return self.ssh(["xl", "domid", GUEST], check=False).returncode == 0

    def guest_console(self) -> str:
        """All that the guest ever said on its console under Xen."""
        log = self.ssh(["cat", f"/var/log/xen/console/guest-{GUEST}.log"]).stdout
        return log.decode(errors="replace")

    def keep_disk(self, name: str) -> Path:
        """The volume group's disk as it is now, as a raw image: the truth from underneath dom0. The machine
        goes on, and writes to another overlay.
        """
        moment = self._group_disk
        self._group_disk = self.folder / f"after-{name}.qcow2"
        with self.monitor() as monitor:
            monitor.ask(
                "blockdev-snapshot-sync",
                device=GROUP,
                **{"snapshot-file": str(self._group_disk), "format": "qcow2"},
            )
        image = self.folder / f"{name}.img"
        tool("qemu-img", "convert", "-U", "-O", "raw", str(moment), str(image))
        return image

    def plug_in(self) -> None:
        """Put dom0's cable in again, and wait until the host answers."""
        for host in HOSTS:
            self._forget(host)
        with self.monitor() as monitor:
            monitor.set_cable(plugged_in=True)
        self.wait_for("dom0")

    def power_off(self) -> None:
        """Shut dom0 down, and wait for the machine's end."""
        self.ssh(["systemctl", "poweroff"], check=False)
        # Xen was told not to reboot: it halts, and QEMU with it only if it gets as far as ACPI.
        deadline = time.monotonic() + 120
        while self._process.poll() is None and time.monotonic() < deadline:
            if "Hardware Dom0 halted" in self._last_words() or "halting machine" in self._last_words():
                break
            time.sleep(_POLL_SECONDS)

    def save(self, memory: Path) -> None:
        """Keep the running machine's memory; the machine stays halted, its disks as they are."""
        for host in HOSTS:
            self._forget(host)
        with self.monitor() as monitor:
            monitor.save_state(memory)

    def monitor(self) -> Monitor:
        """QEMU's own monitor, which takes a moment to be there."""
        while not self.monitor_path.exists() and self._process.poll() is None:
            time.sleep(0.1)
        return Monitor(self.monitor_path)

    def close(self) -> None:
        """End the machine, as a power cut does."""
        for host in HOSTS:
            self._forget(host)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        return self.console_log.read_text(errors="replace")[-3000:] if self.console_log.exists() else ""

    def _forget(self, host: str) -> None:
        """Drop the shared connection to a host, which would keep a dead one alive."""
        command = ["ssh", "-F", str(self.ssh_config), "-O", "exit", host]
        subprocess.run(command, capture_output=True, check=False)

    def _write_ssh_config(self) -> None:
        known = self.folder / "known_hosts"
        public = {host: key(f"host_{host}").with_suffix(".pub").read_text() for host in HOSTS}
        known.write_text("".join(f"{host} {text}" for host, text in public.items()))
        hosts = "".join(
            f"Host {host}\n  HostName 127.0.0.1\n  HostKeyAlias {host}\n  Port {port}\n"
            for host, port in self.ports.items()
        )
        self.ssh_config.write_text(
            f"{hosts}Host *\n  User root\n  IdentityFile {key('user')}\n  IdentitiesOnly yes\n"
            # What software emulation encrypts fastest.
            "  BatchMode yes\n  Ciphers chacha20-poly1305@openssh.com\n"
            f"  UserKnownHostsFile {known}\n  StrictHostKeyChecking yes\n  ConnectTimeout 10\n"
            f"  ServerAliveInterval 10\n  ServerAliveCountMax 3\n  LogLevel ERROR\n"
            f"  ControlMaster auto\n  ControlPath {self.folder}/ssh-%n\n  ControlPersist 600\n"
        )


@contextmanager
def xen_lab(folder: Path, state: State, *, extra_disks: Sequence[Path] = ()) -> Iterator[XenLab]:
    """Run the machine from a state, which stays as it is: what is written goes to overlays in `folder`.

    `extra_disks` are raw images that dom0 has as vdc, vdd and so on, read-only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    overlays = [
        _overlay(disk, folder / f"{name}.qcow2") for name, disk in zip(DISKS, state.disks, strict=True)
    ]
    ports = dict(zip(HOSTS, _free_ports(len(HOSTS)), strict=True))
    command = _command(folder, overlays, ports, extra_disks)
    if state.memory is not None:
        command += ["-incoming", f"exec:cat '{state.memory}'"]
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    lab = XenLab(folder, process, ports)
    try:
        if state.memory is not None:
            with lab.monitor() as monitor:
                monitor.resume()
        lab.wait_for("dom0")
        if state.memory is not None:
            lab.prefer_dom0()
        yield lab
    finally:
        lab.close()


def _overlay(disk: Path, overlay: Path) -> Path:
    kind = "qcow2" if disk.suffix == ".qcow2" else "raw"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", kind, str(overlay))
    return overlay


def _command(
    folder: Path, disks: Sequence[Path], ports: dict[str, int], extra_disks: Sequence[Path]
) -> list[str]:
    hypervisor, kernel, initrd = boot_files()
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{ports[host]}-{HOSTS[host]}:22" for host in HOSTS)
    drives = [f"file={disk},format=qcow2,cache=unsafe,id={disk.stem}" for disk in disks]
    drives += [f"file={disk},format=raw,readonly=on" for disk in extra_disks]
    # Software emulation, whatever the host has. Xen's dom0 panics on `-cpu max`, and is slower with two
    # processors where others use the host's too. The machine ends with whoever started it.
    return [
        *("setpriv", "--pdeathsig", "TERM", "--"),
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "Haswell-noTSX", "-smp", "1"),
        *("-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(hypervisor), "-append", _XEN, "-initrd", f"{kernel} {_LINUX},{initrd}"),
        *("-serial", f"file:{folder}/console.log"),
        *("-qmp", f"unix:{folder}/monitor,server=on,wait=off"),
        *("-netdev", f"user,id={NETWORK}{forwards}"),
        *("-device", f"virtio-net-pci,netdev={NETWORK},mac=52:54:00:5e:ed:00"),
        *(word for drive in drives for word in ("-drive", f"{drive},if=virtio")),
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
