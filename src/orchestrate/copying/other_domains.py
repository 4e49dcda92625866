"""What libvirt knows of the target: another guest's disk is no target, even while that guest is shut off."""

from blocksync.errors import Refused
from orchestrate.kvm.libvirt import Libvirt, LibvirtUnreachable
from orchestrate.plan.model import Plan

GUARD = "domain"


def refuse_other_domains(plan: Plan, overrides: frozenset[str]) -> None:
    """Raises `Refused` (guard `domain`) where a domain other than the plan's guest has the target as a disk,
    in whatever state it is. Where there is no virsh or no daemon, nothing is asked.
    """
    if GUARD in overrides or not plan.target.exists():
        return
    libvirt = Libvirt()
    try:
        uses = libvirt.domains_using(plan.target)
    except LibvirtUnreachable:
        return
    for use in uses:
        if use.domain != plan.guest.name:
            raise Refused(
                plan.target,
                f"is a disk of the domain {use.domain}, which is {use.state} at {libvirt.uri}",
                "name another target; knowing better, --override domain",
                guard=GUARD,
            )
