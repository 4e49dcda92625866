"""`xen2kvm status`: where a migration stands, read without holding the job."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestrate import forecast
from orchestrate.forecast import Forecast
from orchestrate.job import DEFAULT_FOLDER, Job, State
from orchestrate.plan.model import Plan


@dataclass(frozen=True, slots=True)
class Status:
    """A job's state, what can be foretold of its next pass (`predicted` in seconds, if the guest stopped
    now), which process holds it, and its cutover's journal as it stands in the file, where there is one.
    """

    guest: str
    state: State
    forecast: Forecast | None
    predicted: float | None
    holder: int | None
    journal: dict[str, Any] | None


def of(plan: Plan, folder: Path | None, now: float | None = None) -> Status:
    """The status of a plan's guest, whose job is in `folder` or below DEFAULT_FOLDER. Raises Failed."""
    folder = folder or DEFAULT_FOLDER / plan.guest.name
    state = Job(folder, plan).state()
    found = forecast.of(state.records)
    predicted = None
    if found is not None:
        predicted = found.seconds(max(0.0, (time.time() if now is None else now) - state.records[-1].at))
    return Status(plan.guest.name, state, found, predicted, _holder(folder / "lock"), _journal(folder))


def _holder(lock: Path) -> int | None:
    """The process that the lock names, if it has it open: taking the lock ourselves would be in the way."""
    try:
        pid = int(lock.read_text())
        descriptors = Path(f"/proc/{pid}/fd").iterdir()
        found = any(each.samefile(lock) for each in descriptors if each.exists())
    except (OSError, ValueError):
        return None
    return pid if found else None


def _journal(folder: Path) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode((folder / "journal.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return None
