"""The two sides that a guest can run on, and the guard that it never runs on both.

Before each start on either side the other one is asked, at that moment; what a file remembers is no proof.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Protocol
from uuid import NAMESPACE_URL, uuid5

from blocksync.errors import Failed, Refused
from blocksync.hosts.host import Host
from orchestrate.kvm.libvirt import Libvirt, LibvirtUnreachable
from orchestrate.plan.model import Plan
from orchestrate.xen import toolstack
from orchestrate.xen.toolstack import AutostartLink, SlowDevices, Toolstack

_RELEASE_SECONDS = 30.0
_POLL_SECONDS = 0.5
_START_ATTEMPTS = 3


class Asking(Protocol):
    """Whom to ask when something is in doubt: the operator, or nobody."""

    def accepts(self, risk: str) -> bool:
        """Whether to go on although `risk`, a clause about the guest."""

    def when_it_stays(self, name: str, seconds: float) -> "SideAnswer":
        """The guest still runs after `seconds`: what now?"""


@dataclass(frozen=True, slots=True)
class SideAnswer:
    """The operator's answer; neither means to give up and leave the guest running."""

    wait_on: bool = False
    destroy: bool = False


class Nobody:
    """No terminal: no risk is taken, and a guest that stays is left running."""

    def accepts(self, risk: str) -> bool:
        """As `Asking.accepts`."""
        del risk
        return False

    def when_it_stays(self, name: str, seconds: float) -> SideAnswer:
        """As `Asking.when_it_stays`."""
        del name, seconds
        return SideAnswer()


@dataclass(frozen=True, slots=True)
class XenSide:
    """The guest on its Xen host; `tools` is None where that host has no toolstack (volumes as files)."""

    plan: Plan
    tools: Toolstack | None

    def runs(self) -> bool:
        """Whether the hypervisor has the guest, in whatever state."""
        return self.tools is not None and self.tools.state(self.plan.guest.on_xen) is not None

    def require_absent(self) -> None:
        """Raise `Refused` (guard `runs-on-xen`) if the hypervisor has the guest."""
        if self.runs():
            raise Refused(
                f"guest {self.plan.guest.name}",
                "is on Xen still, or again",
                "it must never run on both sides: find out who started it, and stop it on one",
                guard="runs-on-xen",
            )

    def stop(self, seconds: float, asking: Asking) -> None:
        """Stop the guest and prove it: gone from the hypervisor. A guest that is gone already is stopped.

        Raises `Refused` (guard `still-running`), with the guest running, when it does not stop in time.
        """
        name = self.plan.guest.on_xen
        if self.tools is None or self.tools.state(name) is None:
            return
        if not _stopped(self.tools.shutdown, self.tools.destroy, name, seconds, asking):
            raise _stays(name, "Xen", seconds)
        # A toolstack takes a guest that has shut down apart a moment later, a slow host many seconds.
        deadline = time.monotonic() + _RELEASE_SECONDS
        while self.tools.state(name) is not None:
            if time.monotonic() > deadline:
                raise Failed(
                    f"guest {name}",
                    "has shut down, but Xen keeps its remains",
                    f"look at them if you need to, then `{self.tools.tool} destroy {name}`, and go on",
                )
            time.sleep(_POLL_SECONDS)

    def require_released(self) -> None:
        """Raise `Refused` (guard `volume-open`) if anybody has a volume open; backends get time to let go."""
        if self.tools is None:
            return
        paths = [volume.path for volume in self.plan.copied]
        deadline = time.monotonic() + _RELEASE_SECONDS
        while holders := self.tools.holders(paths):
            if time.monotonic() > deadline:
                told = "; ".join(f"{holder.path}: {holder.who}" for holder in holders)
                raise Refused(
                    f"volumes of {self.plan.guest.name}",
                    f"are open on the Xen host: {told}",
                    "close what has them open, and run the same command again",
                    guard="volume-open",
                )
            time.sleep(_POLL_SECONDS)

    def autostart(self) -> tuple[AutostartLink, ...]:
        """The links that start the guest with its Xen host."""
        if self.tools is None or self.plan.config is None:
            return ()
        return self.tools.autostart(self.plan.config, self.plan.guest.on_xen)

    def start(self) -> None:
        """Start the guest from its configuration, unless it runs."""
        if self.tools is None:
            raise Failed(
                f"guest {self.plan.guest.name}",
                "its Xen host cannot be asked from here: no xl or xm",
                "start it there yourself; its volumes are as they were",
            )
        if self.runs():
            return
        if self.plan.config is None:
            raise Failed(
                f"guest {self.plan.guest.name}",
                "the plan does not say where its Xen configuration is",
                'add `config = "/etc/xen/..."` at the plan\'s head',
            )
        self._create(self.tools, self.plan.config)

    def _create(self, tools: Toolstack, config: str) -> None:
        """Start the guest; again where its host was too busy for its devices, and nothing of it is left."""
        for _ in range(_START_ATTEMPTS - 1):
            try:
                tools.create(config)
            except SlowDevices:
                if self.runs():
                    raise
            else:
                return
        tools.create(config)


@dataclass(frozen=True, slots=True)
class KvmSide:
    """The guest in libvirt."""

    plan: Plan
    libvirt: Libvirt

    @property
    def uuid(self) -> str:
        """The domain's own UUID: the same guest on the same disk, by whatever name, is the same domain."""
        return str(uuid5(NAMESPACE_URL, f"xen2kvm:{self.plan.guest.name}:{self.plan.disk.identity}"))

    def state(self) -> str | None:
        """virsh's word for the guest's state; None when it is not defined."""
        name = self.plan.guest.name
        return self.libvirt.state(name) if self.libvirt.is_defined(name) else None

    def runs(self) -> bool:
        """Whether libvirt has the guest in any state but shut off."""
        return self.state() not in (None, "shut off", "crashed")

    def require_absent(self) -> None:
        """Raise `Refused` (guard `domain-running`) if the guest, or any domain on its disk, runs."""
        name = self.plan.guest.name
        if self.runs():
            raise self._running(name, self.libvirt.state(name))
        for use in self.libvirt.domains_using(self.plan.target):
            if use.running:
                raise self._running(use.domain, use.state)

    def require_ours(self) -> None:
        """Raise `Refused` (guard `domain-exists`) if libvirt has another domain of the guest's name."""
        name = self.plan.guest.name
        there = self.libvirt.uuid(name)
        if there is not None and there != self.uuid:
            raise Refused(
                f"domain {name}",
                f"is defined at {self.libvirt.uri} already, by somebody else ({there})",
                f"keep what you need of it (virsh dumpxml {quote(name)}), then virsh undefine {quote(name)}",
                guard="domain-exists",
            )

    def start(self) -> None:
        """Start the domain, unless it runs."""
        if not self.runs():
            self.libvirt.start(self.plan.guest.name)

    def stop(self, seconds: float, asking: Asking) -> None:
        """Shut the domain down. Raises `Refused` (guard `still-running`) when it does not stop in time."""
        name = self.plan.guest.name
        if self.runs() and not _stopped(self.libvirt.shutdown, self.libvirt.destroy, name, seconds, asking):
            raise _stays(name, "KVM", seconds)

    def _running(self, name: str, state: str) -> Refused:
        return Refused(
            f"domain {name}",
            f"is {state} at {self.libvirt.uri} already",
            f"stop it first: virsh shutdown {quote(name)}",
            guard="domain-running",
        )


def xen_side(plan: Plan, host: Host) -> XenSide:
    """The Xen side of a plan. Raises `Failed` for a toolstack that is there and does not answer."""
    return XenSide(plan, toolstack.find(host))


def kvm_side(plan: Plan) -> KvmSide:
    """The KVM side of a plan."""
    return KvmSide(plan, Libvirt())


def kvm_side_if_any(plan: Plan) -> KvmSide | None:
    """The KVM side, None where there is no libvirt that could run the guest."""
    side = kvm_side(plan)
    try:
        side.state()
    except LibvirtUnreachable:
        return None
    return side


class _Shutdown(Protocol):
    def __call__(self, name: str, seconds: float, *, wait_on: Callable[[], bool]) -> bool: ...


def _stopped(
    shutdown: _Shutdown, destroy: Callable[[str], None], name: str, seconds: float, asking: Asking
) -> bool:
    """Shut down with a time limit and then a question; False when the guest is to be left running."""
    answers: list[SideAnswer] = []

    def wait_on() -> bool:
        answers.append(asking.when_it_stays(name, seconds))
        return answers[-1].wait_on

    if shutdown(name, seconds, wait_on=wait_on):
        return True
    if not answers[-1].destroy:
        return False
    destroy(name)
    return True


def _stays(name: str, side: str, seconds: float) -> Refused:
    return Refused(
        f"guest {name}",
        f"did not shut down within {seconds:g} s; it was left running on {side}",
        "look why it does not stop; a longer --shutdown-timeout waits longer",
        guard="still-running",
    )
