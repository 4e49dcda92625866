"""The file with the domain's XML that a cutover leaves: written where nothing of somebody else's stands."""

import xml.etree.ElementTree as ET
from pathlib import Path

from blocksync import own_files
from blocksync.errors import Usage, telling
from orchestrate import fencing
from orchestrate.plan.model import Plan

_READABLE = 0o644
_LARGEST = 2**20


def require_ours(path: Path, plan: Plan) -> None:
    """Raises Usage unless nothing is at `path`, or the XML of this plan's own domain. Writes nothing."""
    if own_files.require_regular(path, "a domain's XML") is None:
        return
    if _uuid(own_files.read(path, "a domain's XML", _LARGEST) or b"") != fencing.kvm_side(plan).uuid:
        raise Usage(path, f"is not the XML of {plan.guest.name}'s domain", "name another file with --xml")


def require_place(path: Path, plan: Plan) -> None:
    """As `require_ours`, and that it can be written; leaves nothing. Raises Failed too."""
    require_ours(path, plan)
    with telling(path, "cannot be written", "name another place for it with --xml"), own_files.fresh(path):
        pass


def write(path: Path, xml: str) -> None:
    """Write it durably. Raises Usage, Failed."""
    own_files.replace(path, xml.encode(), "a domain's XML", _READABLE)


def _uuid(content: bytes) -> str | None:
    try:
        return ET.fromstring(content).findtext("uuid")
    except (ET.ParseError, ValueError):
        return None
