"""What is asked before a guest is stopped: all that would make the night longer is found here."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import Failed, Refused
from orchestrate import forecast
from orchestrate.announce import announcements
from orchestrate.job import Job
from orchestrate.journal import Content, Owner
from orchestrate.plan.model import Plan
from orchestrate.sides import Asking, KvmSide, XenSide
from orchestrate.torn import refuse_torn

NOT_REHEARSED = "not-rehearsed"
NOT_CONVERGING = "not-converging"
GUARDS = frozenset({NOT_REHEARSED, NOT_CONVERGING})
"""What an operator may go on in spite of, by a word at the terminal or by `--override`."""


@dataclass(frozen=True, slots=True)
class Risk:
    """Why a night may become long, and what to do about it first."""

    guard: str
    cause: str
    way_out: str


def require(job: Job, journal: Content, xen: XenSide, kvm: KvmSide | None) -> tuple[str, ...]:
    """Raise `Refused` or `Failed` for what stands in the way of a cutover; what the operator should know."""
    refuse_torn(job)
    # What starts the guest with its host is taken away once it is stopped: refuse before that what cannot be.
    xen.autostart()
    if kvm is not None:
        kvm.require_ours()
        if journal.owner is Owner.XEN:
            kvm.require_absent()
        _require_network(job.plan)
        kvm.libvirt.probe()
    return tuple(_notes(job.plan, xen, kvm))


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


def accepted(guest: str, found: Iterable[Risk], known: frozenset[str], asking: Asking) -> tuple[str, ...]:
    """The guards of the risks, all of them accepted: `known` beforehand, or when asked.

    Raises `Refused` by the first guard that is not.
    """
    names = []
    for risk in found:
        if risk.guard not in known and not asking.accepts(f"{guest} {risk.cause}"):
            raise Refused(
                f"guest {guest}",
                risk.cause,
                f"{risk.way_out}; to go on as it is: --override {risk.guard}",
                guard=risk.guard,
            )
        names.append(risk.guard)
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
    if any(announcements(plan.nic)) and shutil.which("arping") is None:
        raise Failed(
            "arping", "not found on PATH, and the plan has addresses to announce", "apt-get install arping"
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
