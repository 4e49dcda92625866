"""libvirt through `virsh`, the few calls that a cutover needs."""

import os
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from blocksync.devices import backing
from blocksync.devices.identity import is_same
from blocksync.errors import Failed
from blocksync.hosts import programs

DEFAULT_URI = "qemu:///system"
# A daemon that probes a KVM which does not work needs most of a minute for one call.
_SECONDS = 300.0
_POLL_SECONDS = 0.25
_STOPPED = ("shut off", "crashed")


class LibvirtUnreachable(Failed):
    """There is no `virsh` here, or no daemon answers it."""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """A domain whose configuration, live or stored, has a disk: `state` in virsh's words ("running",
    "paused", "shut off", ...), `source` the path as the domain names it."""

    domain: str
    state: str
    source: str

    @property
    def running(self) -> bool:
        """Whether QEMU may have the disk open."""
        return self.state != "shut off"


def default_uri() -> str:
    """LIBVIRT_DEFAULT_URI, or the system's own QEMU."""
    return os.environ.get("LIBVIRT_DEFAULT_URI") or DEFAULT_URI


@dataclass(frozen=True, slots=True)
class Libvirt:
    """A libvirt daemon. Every call raises Unreachable when it or `virsh` is missing, Failed when the
    daemon says no (with its own words)."""

    uri: str = field(default_factory=default_uri)

    def probe(self) -> None:
        """Have the daemon look at all its emulators now, as it does once: the first `define` takes that time
        otherwise, half a minute on a busy machine. What is wrong with one, `define` says.
        """
        with suppress(Failed):
            self._virsh("capabilities")

    def define(self, xml: str) -> None:
        """Store the domain, checked against libvirt's schema; it is not started."""
        self._virsh("define", "--validate", "--file=/dev/stdin", given=xml)

    def check(self, xml: str) -> None:
        """Have the daemon read the domain as it would to start it: nothing is stored, nothing starts."""
        self._virsh("domxml-to-native", "qemu-argv", "--xml=/dev/stdin", given=xml)

    def start(self, name: str) -> None:
        """Start a defined domain."""
        self._virsh("start", f"--domain={self._uuid(name)}")

    def shutdown(self, name: str, seconds: float, *, wait_on: Callable[[], bool] = lambda: False) -> bool:
        """Ask the guest to shut down and wait; False when it still runs after `seconds`.

        Before it gives up, `wait_on` may say True: then it waits as long again.
        """
        uuid = self._uuid(name)
        self._virsh("shutdown", f"--domain={uuid}")
        while not self._ended(uuid, seconds):
            if not wait_on():
                return False
        return True

    def destroy(self, name: str) -> None:
        """End the domain as pulling the plug does. Only for an operator who said so."""
        self._virsh("destroy", f"--domain={self._uuid(name)}")

    def autostart(self, name: str, *, on: bool) -> None:
        """Whether the domain starts with its host."""
        self._virsh("autostart", f"--domain={self._uuid(name)}", *(() if on else ("--disable",)))

    def uuid(self, name: str) -> str | None:
        """The UUID of the domain of exactly this name, None when there is none."""
        return self._uuids().get(name)

    def is_defined(self, name: str) -> bool:
        """Whether a domain of exactly this name is there, running or not."""
        return name in self._uuids()

    def state(self, name: str) -> str:
        """virsh's word for the domain's state ("running", "shut off", ...); Failed when there is none."""
        return self._state_of(self._uuid(name))

    def domains_using(self, path: Path) -> tuple[DiskUse, ...]:
        """The domains, by name, that have `path` as a disk or below one (backing chain, copy target).

        Paths are the same when they lead to the same file or the same block device, through links too, or to
        a disk and a partition of it.
        """
        uses = []
        for name, uuid in sorted(self._uuids().items()):
            source = next((s for s in self._sources(name, uuid) if _shares(Path(s), path)), None)
            if source is not None:
                uses.append(DiskUse(name, self._state_of(uuid), source))
        return tuple(uses)

    def _ended(self, uuid: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._state_of(uuid) not in _STOPPED:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _sources(self, name: str, uuid: str) -> Iterator[str]:
        # A running domain's stored configuration can name other disks than it runs with; both count.
        for which in ((), ("--inactive",)):
            domain = ET.fromstring(self._virsh("dumpxml", f"--domain={uuid}", *which))
            for disk in domain.iterfind("devices/disk"):
                for element in disk.iter():
                    yield from self._paths(name, element)

    def _paths(self, name: str, element: ET.Element) -> Iterator[str]:
        if element.tag not in ("source", "mirror"):
            return
        for attribute in ("file", "dev"):
            if attribute in element.attrib:
                yield element.attrib[attribute]
        if "pool" in element.attrib and "volume" in element.attrib:
            yield self._volume_path(name, element.attrib["pool"], element.attrib["volume"])

    def _volume_path(self, name: str, pool: str, volume: str) -> str:
        try:
            return self._virsh("vol-path", f"--pool={pool}", f"--vol={volume}").strip()
        except LibvirtUnreachable:
            raise
        except Failed as error:
            cause = f"cannot tell where its disk {pool}/{volume} is: {error.cause}"
            raise Failed(f"domain {name}", cause, f"virsh pool-start {pool}") from error

    def _state_of(self, uuid: str) -> str:
        return self._virsh("domstate", f"--domain={uuid}").strip()

    def _uuid(self, name: str) -> str:
        uuid = self._uuids().get(name)
        if uuid is None:
            raise Failed(f"domain {name}", f"not defined at {self.uri}", "define it with its XML first")
        return uuid

    def _uuids(self) -> dict[str, str]:
        # By UUID from here on: virsh takes a name such as "3" for a domain's number.
        lines = self._virsh("list", "--all", "--uuid", "--name").splitlines()
        pairs = (line.split(maxsplit=1) for line in lines if line.strip())
        return {name.rstrip(): uuid for uuid, name in pairs}

    def _virsh(self, command: str, *arguments: str, given: str = "") -> str:
        virsh = programs.look_up("virsh")
        if virsh is None:
            raise LibvirtUnreachable("virsh", "not found on PATH", "apt-get install libvirt-clients")
        argv = [virsh, "-q", "-c", self.uri, command, *arguments]
        try:
            done = programs.run(
                argv,
                input=given,
                capture_output=True,
                text=True,
                env=programs.environment(LC_ALL="C"),
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            way_out = "look at the daemon's log: journalctl -u libvirtd"
            raise LibvirtUnreachable(
                self.uri, f"virsh {command}: no answer in {_SECONDS:g} s", way_out
            ) from error
        if done.returncode != 0:
            raise _refusal(self.uri, command, done.stderr)
        return str(done.stdout)


def _refusal(uri: str, command: str, stderr: str) -> Failed:
    said = "; ".join(line.removeprefix("error: ") for line in stderr.splitlines() if line.strip())
    if "failed to connect to the hypervisor" in stderr:
        way_out = "start the daemon (systemctl start libvirtd) or name another in LIBVIRT_DEFAULT_URI"
        return LibvirtUnreachable(uri, said, way_out)
    return Failed(uri, f"virsh {command}: {said}", "correct what libvirt names and run the command again")


def _shares(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same disk, or to parts of one that share a byte."""
    if is_same(one, other):
        return True
    try:
        return backing.of_status(one.stat()).overlaps(backing.of_status(other.stat()))
    except OSError:
        return False
