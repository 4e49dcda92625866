"""`xen2kvm finish`: the guest stays on KVM. Snapshots go; source volumes are the operator's to remove."""

import shlex

from blocksync.errors import Refused
from orchestrate import fencing
from orchestrate.copying import passes
from orchestrate.copying.source import Source
from orchestrate.fencing import KvmSide
from orchestrate.job import journal as journals
from orchestrate.job.folder import Job
from orchestrate.job.journal import Closed
from orchestrate.job.send_back_mark import refuse_torn
from orchestrate.plan.model import Plan


def run(job: Job, source: Source) -> tuple[str, ...]:
    """End the job; the commands that remove the source volumes, which are not run.

    Raises `Refused` (guard `not-on-kvm`) unless the guest was cut over, runs on KVM and not on Xen.
    """
    plan = job.plan
    journal = journals.opened(job.folder, plan.guest.name, plan.target)
    kvm = fencing.kvm_side(plan)
    refuse_torn(job)
    if journal.content.closed not in (Closed.DONE, Closed.FINISHED) or not _serves(kvm):
        raise Refused(
            f"guest {plan.guest.name}",
            "is not proven to run on KVM",
            "finish its cutover first: `xen2kvm cutover --start`; `xen2kvm status` says where it stands",
            guard="not-on-kvm",
        )
    fencing.xen_side(plan, source.host).require_absent()
    passes.drop_moments(job, source)
    journal.note(closed=Closed.FINISHED)
    return removals(plan)


def _serves(kvm: KvmSide) -> bool:
    """Whether the guest's domain runs, and on the plan's disk."""
    uses = kvm.libvirt.domains_using(kvm.plan.target)
    return any(use.domain == kvm.plan.guest.name and use.state == "running" for use in uses)


def removals(plan: Plan) -> tuple[str, ...]:
    """The command for each source volume, on the host that has it."""
    return tuple(_removal(plan, volume.path) for volume in plan.volume)


def _removal(plan: Plan, path: str) -> str:
    command = shlex.join(["lvremove", path] if path.startswith("/dev/") else ["rm", "--", path])
    if plan.xen_host is None:
        return command
    name, colon, port = plan.xen_host.rpartition(":")
    there = ["-p", port, name] if colon and port.isdigit() else [plan.xen_host]
    return shlex.join(["ssh", *there, command])
