"""What is asked before a guest is stopped: all that would make the night longer is found here."""

import shutil
from pathlib import Path

from blocksync.errors import Failed, Refused
from orchestrate.announce import announcements
from orchestrate.job import Job
from orchestrate.journal import Content, Owner
from orchestrate.plan.model import Plan
from orchestrate.sides import KvmSide, XenSide
from orchestrate.torn import refuse_torn


def require(job: Job, journal: Content, xen: XenSide, kvm: KvmSide | None) -> tuple[str, ...]:
    """Raise `Refused` or `Failed` for what stands in the way of a cutover; what the operator should know."""
    refuse_torn(job)
    if kvm is not None:
        kvm.require_ours()
        if journal.owner is Owner.XEN:
            kvm.require_absent()
        _require_network(job.plan)
    return tuple(_notes(job, xen, kvm))


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


def _notes(job: Job, xen: XenSide, kvm: KvmSide | None) -> list[str]:
    notes = []
    if job.state().rehearsed is None:
        notes.append("this copy was never rehearsed: `xen2kvm rehearse` shows whether the guest comes up")
    if xen.tools is None:
        notes.append("no xl or xm where the volumes are: that the guest is stopped there is your word")
    elif xen.plan.config is None:
        notes.append("the plan has no `config`: a rollback cannot start the guest on Xen by itself")
    if kvm is not None and not job.plan.check:
        notes.append("the plan has no [[check]]: the console's pattern alone says that the guest is up")
    return notes
