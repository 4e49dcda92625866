"""`xen2kvm rehearse`: boot the guest as it would be after a cutover, on an overlay that is thrown away."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from blocksync.errors import Refused
from orchestrate.copying import ownership
from orchestrate.guest.files.mounts import unmount_leftovers
from orchestrate.guest.fixups import selinux_relabel
from orchestrate.handover.convert import finish
from orchestrate.job.folder import Job
from orchestrate.job.stopwatch import Step, Stopwatch
from orchestrate.kvm import accel, bridge
from orchestrate.kvm.confinement import confinement
from orchestrate.kvm.machine import Machine, MachineSpec
from orchestrate.kvm.overlay import overlay, remove_leftovers

NONE = "none"
"""No network card."""
CUT = "cut"
"""The guest's own cards, on a network that answers DHCP and leads nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearseRequest:
    """`expect` overrides the plan's pattern; `timeout` is how long the console may stay without it, in s.

    `network` is NONE, CUT, or the name of a bridge on this host that leads nowhere.
    """

    timeout: float = 300.0
    expect: str | None = None
    network: str = NONE
    accelerator: str = "auto"

    @property
    def bridge(self) -> str | None:
        """The bridge that the guest's cards are on, None when on none."""
        return None if self.network in {NONE, CUT} else self.network


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A guest that came up: what its console said, each step's time, where the whole console is kept, and
    what the person should know.
    """

    seen: str
    steps: tuple[Step, ...]
    console: Path
    notes: tuple[str, ...] = ()


def run(job: Job, request: RehearseRequest, watch: Stopwatch) -> Rehearsal:
    """Boot an overlay of the target; the target's bytes stay as they are. `Failed` if it does not come up.

    `Refused` (guard `not-isolated`) for a bridge on which the copy would meet the guest.
    """
    plan = job.plan
    if request.bridge is not None:
        bridge.require_isolated(request.bridge)
    state = ownership.require_copy(job)
    _require_copy(job, state.passes)
    remove_leftovers(job.folder, unmount_leftovers)
    console = job.folder / "consoles" / f"rehearsal-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.log"
    with overlay(plan.target, job.folder) as layer:
        with layer.raw() as raw:
            finish(plan, raw, watch)
        spec = MachineSpec(
            disk=layer.qcow2,
            disk_format="qcow2",
            memory_mib=plan.guest.memory_mib,
            vcpus=plan.guest.vcpus,
            accelerator=accel.choose(request.accelerator),
            macs=() if request.network == NONE else tuple(nic.mac for nic in plan.nic),
            bridge=request.bridge,
            # It boots again when everything is labelled.
            may_reboot=any(choice.name == selinux_relabel.NAME for choice in plan.fixup),
        )
        with Machine(spec, console) as machine, watch.step("boot until the console says it is up"):
            seen = machine.wait_for(request.expect or plan.boot.expect, request.timeout, tell=watch.tell)
    job.remember(replace(state, rehearsed=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"))
    lacks = confinement(spec.accelerator).lacks
    return Rehearsal(seen.text, tuple(watch.steps), console, (lacks,) if lacks else ())


def _require_copy(job: Job, passes: int) -> None:
    if passes == 0 or not job.plan.target.exists():
        raise Refused(
            job.plan.disk.path,
            "holds no complete copy of the guest yet",
            "make one with `xen2kvm sync`",
            guard="no-pass",
        )
