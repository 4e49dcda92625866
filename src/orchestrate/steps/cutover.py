"""`xen2kvm cutover`: the last pass, the proof, the fix-ups, and the target is a guest's disk.

Each step may be interrupted: until the target is handed over, the same command starts over, and a target
that fix-ups were written to is compared byte by byte and becomes the volumes' copy again first.
"""

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from blocksync.errors import Refused
from orchestrate.job import Job, Phase
from orchestrate.kvm import accel
from orchestrate.kvm.domain import DomainSpec, Nic, domain_xml
from orchestrate.kvm.libvirt import Libvirt
from orchestrate.plan.file import write
from orchestrate.plan.model import Plan, Volume
from orchestrate.source import Source
from orchestrate.steps import sync
from orchestrate.steps.finishing import finish
from orchestrate.steps.sync import SyncReport, SyncRequest, Tasks
from orchestrate.stopwatch import Step, Stopwatch


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoverRequest:
    """`xml` is where the domain's XML goes; `start` defines and starts it in libvirt."""

    xml: Path
    start: bool = False
    again: bool = False
    accelerator: str = "auto"
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CutoverReport:
    """The last pass, what was proven of each copied volume, each step's time, the domain's XML."""

    last_pass: SyncReport
    proofs: dict[str, str]
    steps: tuple[Step, ...]
    xml: Path
    started: bool


def run(job: Job, source: Source, request: CutoverRequest, tasks: Tasks, watch: Stopwatch) -> CutoverReport:
    """Cut over; the target is durable and the domain's XML written when this returns.

    Raises `Differences` if the target is not equal to the volumes after the last pass.
    """
    plan = job.plan
    if not request.again:
        job.require_passes("cutover")
    libvirt = _ready_libvirt(plan) if request.start else None
    with watch.step("last pass"):
        last = sync.run(job, source, SyncRequest(again=request.again, overrides=request.overrides), tasks)
    with watch.step("verify"):
        proofs = {volume.device: _proof(plan, source, volume, tasks) for volume in plan.copied}
    domain = domain_xml_of(plan, request.accelerator)
    _enter(job, Phase.FINISHING)
    # From here on nothing that was noted about the target's bytes is true.
    job.forget_digests()
    finish(plan, plan.target, watch)
    write(request.xml, domain)
    _enter(job, Phase.HANDED_OVER)
    if libvirt is not None:
        with watch.step("define and start"):
            libvirt.define(domain)
            libvirt.start(plan.guest.name)
    return CutoverReport(last, proofs, tuple(watch.steps), request.xml, libvirt is not None)


def _enter(job: Job, phase: Phase) -> None:
    job.remember(replace(job.state(), phase=phase))


def _proof(plan: Plan, source: Source, volume: Volume, tasks: Tasks) -> str:
    place = volume.partition
    return source.prove(Path(volume.path), plan.target, place.offset, volume.size, tasks(volume.device))


def _ready_libvirt(plan: Plan) -> Libvirt:
    """A libvirt that answers and does not run this guest; asked before anything is written."""
    libvirt = Libvirt()
    name = plan.guest.name
    if libvirt.is_defined(name) and libvirt.state(name) != "shut off":
        raise Refused(
            f"domain {name}",
            f"is {libvirt.state(name)} at {libvirt.uri} already",
            f"stop it first: virsh shutdown {name}",
            guard="domain-running",
        )
    return libvirt


def domain_xml_of(plan: Plan, accelerator: str) -> str:
    """The libvirt domain for the plan's guest."""
    return domain_xml(
        DomainSpec(
            name=plan.guest.name,
            memory_mib=plan.guest.memory_mib,
            vcpus=plan.guest.vcpus,
            disk=plan.target,
            nics=tuple(Nic(mac=nic.mac, bridge=nic.bridge) for nic in plan.nic),
            accel=accel.domain_type(accel.choose(accelerator)),
            arch=plan.guest.arch,
            clock=plan.guest.clock,
        )
    )
