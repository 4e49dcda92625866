"""What is asked before a guest is stopped: all that would make the night longer is found here."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import BlocksyncError, Refused
from blocksync.hosts.host import Host
from orchestrate.copying import forecast
from orchestrate.fencing import Asking, KvmSide, Nobody, XenSide
from orchestrate.guest.files.mounts import unmount_leftovers
from orchestrate.handover import convert, domain_file, this_host
from orchestrate.handover.this_host import ROOM
from orchestrate.job.folder import Job, Phase
from orchestrate.job.journal import Content, Owner
from orchestrate.job.send_back_mark import refuse_torn
from orchestrate.kvm.overlay import remove_leftovers
from orchestrate.plan.findings import Findings
from orchestrate.plan.model import Plan
from orchestrate.xen.toolstack import Toolstack

NOT_REHEARSED = "not-rehearsed"
NOT_CONVERGING = "not-converging"
NOT_STOPPED = "not-stopped"
FIX_UPS = "fix-ups"
GUARDS = frozenset({NOT_REHEARSED, NOT_CONVERGING, NOT_STOPPED, FIX_UPS, ROOM})
"""What an operator may go on in spite of, by a word at the terminal or by `--override`."""


@dataclass(frozen=True, slots=True)
class Risk:
    """Why a night may become long, and what to do about it first."""

    guard: str
    cause: str
    way_out: str


# Two looks at whether a volume is written are no less than this apart.
_LOOK_SECONDS = 1.0


def require(
    job: Job,
    journal: Content,
    xen: XenSide,
    kvm: KvmSide | None,
    *,
    xml: Path,
    domain: Callable[[], str],
    handed_over: bool,
) -> tuple[str, ...]:
    """Raise `Refused`, `Failed` or `Several` for all that stands in the way of a cutover; what the operator
    should know. `xml` and `domain` are the place and the text of the domain's XML. Of a target that was
    `handed_over` only the start is ahead.
    """
    refuse_torn(job)
    plan, findings = job.plan, Findings()
    for require_it in _wanted(job, journal, xen, kvm, xml=xml, handed_over=handed_over):
        with findings.collected():
            require_it()
    if kvm is not None and not findings:
        kvm.libvirt.probe()
    # A file that is yet to be made by the first pass can be no domain's disk.
    if plan.target.exists() and not findings and not handed_over:
        with findings.collected():
            require_domain(plan, kvm, domain)
    findings.raise_any(f"cutover of {plan.guest.name}")
    return tuple(_notes(plan, xen, kvm))


def _wanted(
    job: Job, journal: Content, xen: XenSide, kvm: KvmSide | None, *, xml: Path, handed_over: bool
) -> Iterator[Callable[[], object]]:
    """What each raises where something is in the way."""
    yield lambda: this_host.require_programs(job.plan, starting=kvm is not None)
    # What starts the guest with its host goes once it is stopped: refuse before that what cannot go.
    yield xen.autostart
    if handed_over:
        yield lambda: domain_file.require_ours(xml, job.plan)
    else:
        yield this_host.require_root
        yield lambda: domain_file.require_place(xml, job.plan)
    if kvm is not None:
        yield kvm.require_ours
        yield lambda: _require_network(job.plan)
        if journal.owner is Owner.XEN:
            yield kvm.require_absent


def require_domain(plan: Plan, kvm: KvmSide | None, domain: Callable[[], str]) -> str:
    """The domain's XML, which libvirt would take, on a disk that its QEMU comes to. Raises otherwise."""
    made = domain()
    if kvm is not None:
        kvm.libvirt.check(made)
        this_host.require_reachable(plan.target, kvm.libvirt)
    return made


def risks(job: Job, max_downtime: float | None) -> tuple[Risk, ...]:
    """What is known against a cutover now. `max_downtime` is what the last pass may take, in seconds."""
    state = job.state()
    found = []
    if state.rehearsed is None:
        cause = "was never rehearsed: nobody knows whether it comes up on KVM"
        found.append(Risk(NOT_REHEARSED, cause, "`xen2kvm rehearse` shows it on an overlay"))
    outlook = forecast.of(state.records)
    # Without a limit there is still a guest that writes faster than passes move.
    why = "" if outlook is None else outlook.why_not(float("inf") if max_downtime is None else max_downtime)
    if why:
        cause = f"its passes do not converge: {why}"
        found.append(Risk(NOT_CONVERGING, cause, "`xen2kvm precopy` in a quieter hour, or a faster link"))
    return tuple(found)


def more_risks(job: Job, xen: XenSide, host: Host, known: frozenset[str]) -> tuple[Risk, ...]:
    """As `risks`, of what takes a moment to find out; not of what is `known` already."""
    looked, before = time.monotonic(), _writes(job.plan, xen, host)
    found = []
    if ROOM not in known and (cause := this_host.lacking_room(job)):
        found.append(Risk(ROOM, f"may run out of room: {cause}", "make room first"))
    if FIX_UPS not in known:
        found += fix_up_risks(job)
    if NOT_STOPPED not in known and xen.tools is None:
        time.sleep(max(0.0, looked + _LOOK_SECONDS - time.monotonic()))
        if cause := _still_uses(job.plan, xen, host, before):
            way_out = "shut it down where it runs; nobody here can ask Xen"
            found.append(Risk(NOT_STOPPED, f"does not seem to be stopped: {cause}", way_out))
    return tuple(found)


def fix_up_risks(job: Job) -> tuple[Risk, ...]:
    """Whether the guest can be repaired, tried on an overlay of the newest copy; nothing is said of a target
    that holds none.
    """
    state = job.state()
    remove_leftovers(job.folder, unmount_leftovers)
    if state.passes == 0 or state.phase is not Phase.PASSES or not job.plan.target.exists():
        return ()
    try:
        convert.rehearse(job)
    except BlocksyncError as error:
        way_out = error.way_out or "mend it inside the guest, or see what this host lacks"
        return (Risk(FIX_UPS, f"cannot be repaired: {error.thing}: {error.cause}", way_out),)
    return ()


def _writes(plan: Plan, xen: XenSide, host: Host) -> str:
    """What changes whenever a volume is written; nothing where Xen can be asked about the guest."""
    if xen.tools is not None:
        return ""
    return Toolstack(host, "").writes([volume.path for volume in plan.copied])


def _still_uses(plan: Plan, xen: XenSide, host: Host, before: str) -> str:
    """Who or what tells that the guest still has its volumes; empty if nothing does."""
    paths = [volume.path for volume in plan.copied]
    holders = Toolstack(host, "").holders(paths)
    if holders:
        return "; ".join(f"{holder.path}: {holder.who}" for holder in holders)
    return "its volumes are being written" if _writes(plan, xen, host) != before else ""


def accepted(guest: str, found: Iterable[Risk], known: frozenset[str], asking: Asking) -> tuple[str, ...]:
    """The guards of the risks, all of them accepted: `known` beforehand, or when asked.

    Raises `Refused` by those that are not: the first one where somebody was asked.
    """
    names, refused = [], Findings()
    for risk in found:
        if risk.guard in known or asking.accepts(f"{guest} {risk.cause}"):
            names.append(risk.guard)
            continue
        way_out = f"{risk.way_out}; to go on as it is: --override {risk.guard}"
        refused.add(Refused(f"guest {guest}", risk.cause, way_out, guard=risk.guard))
        if not isinstance(asking, Nobody):
            break
    refused.raise_any(f"cutover of {guest}")
    return tuple(names)


def _require_network(plan: Plan) -> None:
    for nic in plan.nic:
        if nic.bridge is not None and not Path("/sys/class/net", nic.bridge).exists():
            raise Refused(
                f"bridge {nic.bridge}",
                f"is not on this machine, and {nic.mac} belongs to it",
                f"make it (ip link add {nic.bridge} type bridge), or name another in the plan",
                guard="bridge",
            )


def _notes(plan: Plan, xen: XenSide, kvm: KvmSide | None) -> list[str]:
    notes = []
    if xen.tools is None:
        notes.append("no xl or xm where the volumes are: that the guest is stopped there is your word")
    elif plan.config is None:
        notes.append("the plan has no `config`: a rollback cannot start the guest on Xen by itself")
    if kvm is not None and not plan.check:
        notes.append("the plan has no [[check]]: the console's pattern alone says that the guest is up")
    return notes
