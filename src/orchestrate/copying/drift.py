"""Whether the volumes are still what the plan was made for."""

from pathlib import Path

from blocksync.errors import Refused
from blocksync.hosts.host import Host
from orchestrate.guest import volumes
from orchestrate.plan.compose import UNKNOWN
from orchestrate.plan.model import Plan


def refuse_drift(plan: Plan, host: Host) -> None:
    """Raise if a volume is no longer what the plan approved: missing, resized, or another file system."""
    for volume in plan.volume:
        path = Path(volume.path)
        size = volumes.size(host, path)
        if size != volume.size:
            raise Refused(
                path,
                f"has {size} bytes now, the plan was made for {volume.size}",
                "make the plan again with `xen2kvm plan`",
                guard="plan-drift",
            )
        found = volumes.probe(host, path)
        there = (found.filesystem or UNKNOWN, found.uuid)
        planned = (volume.filesystem, volume.uuid)
        if there != planned:
            raise Refused(
                path,
                f"holds {_words(there)}, the plan was made for {_words(planned)}",
                "make the plan again with `xen2kvm plan`",
                guard="plan-drift",
            )


def _words(identity: tuple[str | None, ...]) -> str:
    return " ".join(part for part in identity if part)
