"""Moments: snapshots of all the guest's copied volumes, made together on the host that has them.

A pass copies from the snapshots of a moment, so that what it copies was on all volumes at once, and looks
only at what may have changed since the moment before. Why nothing is lost, whenever a run is killed:

- The job's state names the moment N since which the candidates hold all that the target may lack.
- A pass makes N+1, lists the candidates since N, copies from N+1 inside them, makes that durable, has the
  state name N+1, and only then removes N. Until the state says N+1, N stands and goes on listing: candidates
  since N never become fewer, and all that an interrupted pass wrote was inside them. So the next pass, from
  a later N+1, looks again at everything that the interrupted one may have left half done.
- What else stands of the job is removed when the next pass begins: N+1 of a run killed before the state
  named it, N of one killed after.
- Names and numbers come again. So the state keeps each snapshot's UUID as well, and a snapshot that has
  another one is as good as gone.
- A snapshot that overflows ends the reads from it with an error, and the lists from it with everything.
"""

import hashlib
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blocksync.changes import Changes, lvm, snapshots
from blocksync.changes.since import since as changed_since
from blocksync.changes.snapshots import Hold
from blocksync.errors import BlocksyncError, Refused
from blocksync.hosts.host import Host, HostLost
from blocksync.hosts.runner import Run
from orchestrate.job.folder import Snapshot
from orchestrate.plan.model import Plan

_LONGEST_NAME = 40
_SAFE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.+-]*")


@dataclass(frozen=True, slots=True)
class Quiesce:
    """Commands for the volumes' host that stop the guest's writes, and let them go on."""

    seize: str
    release: str

    @property
    def hold(self) -> Hold:
        """The same for the snapshots."""
        return Hold(("sh", "-c", self.seize), ("sh", "-c", self.release))


@dataclass(frozen=True, slots=True)
class Moment:
    """Snapshots of one moment by the guest's device. `at` is when they were made, as seconds since 1970."""

    number: int
    at: float
    snapshots: Mapping[str, lvm.LogicalVolume]

    def path(self, device: str) -> Path:
        """Where the snapshot of a volume is read."""
        return Path(self.snapshots[device].path)

    def kept(self) -> dict[str, Snapshot]:
        """The snapshots as the job's state remembers them."""
        return {
            device: Snapshot(
                group=each.group,
                name=each.name,
                uuid=each.uuid,
                size=each.size,
                attributes=each.attributes,
                origin=each.origin,
                pool=each.pool,
                tags=tuple(sorted(each.tags)),
            )
            for device, each in self.snapshots.items()
        }


def remembered(number: int, kept: Mapping[str, Snapshot]) -> Moment:
    """The moment that a job's state names; when it was is in the record of its pass."""
    return Moment(
        number,
        0.0,
        {
            device: lvm.LogicalVolume(
                group=each.group,
                name=each.name,
                uuid=each.uuid,
                size=each.size,
                attributes=each.attributes,
                origin=each.origin,
                pool=each.pool,
                tags=frozenset(each.tags),
            )
            for device, each in kept.items()
        },
    )


class NoMomentError(Exception):
    """There can be no moment now; the message is why, for people."""


class Moments:
    """The moments of one guest's migration. Nothing is asked of the host before it is needed.

    `quiesce` holds the guest while the snapshots of several volumes are made; without it the guest is paused
    if it runs there.
    """

    def __init__(self, host: Host, plan: Plan, quiesce: Quiesce | None = None) -> None:
        self._run = runner(host)
        self._plan = plan
        self._quiesce = quiesce
        self._job = job_name(plan.guest.name)

    def volumes(self) -> dict[str, lvm.LogicalVolume]:
        """The copied volumes in LVM. Raises NoMomentError where they cannot have snapshots, HostLost where
        nobody can tell.
        """
        run = _remembering(self._run)
        found: dict[str, lvm.LogicalVolume] = {}
        for volume in self._plan.copied:
            try:
                found[volume.device] = each = lvm.volume(run, volume.path)
            except HostLost:
                raise
            except BlocksyncError as error:
                raise NoMomentError(f"{error.thing} {error.cause}") from error
            if each.is_snapshot and not each.is_thin:
                raise NoMomentError(f"{volume.path} is a snapshot itself")
        return found

    def take(self, number: int, volumes: Mapping[str, lvm.LogicalVolume]) -> Moment:
        """Make a moment. Raises NoMomentError where there is no room for it, otherwise as
        `blocksync.changes.snapshots.make`: nothing of it is left then.
        """
        hold = self._hold() if len(volumes) > 1 or self._quiesce else None
        try:
            made = snapshots.make(self._run, list(volumes.values()), job=self._job, number=number, hold=hold)
        except Refused as refused:
            raise NoMomentError(f"{refused.thing} {refused.cause}") from refused
        return Moment(number, time.time(), dict(zip(volumes, made, strict=True)))

    def candidates(self, earlier: Moment, until: Moment | None = None) -> dict[str, Changes]:
        """What may have changed on each volume since a moment, until another one or until now."""
        newer = {} if until is None else until.snapshots

        def of(device: str) -> Changes:
            return changed_since(self._run, earlier.snapshots[device], newer.get(device))

        # A far host answers slowly, and about each volume at its own time.
        with ThreadPoolExecutor(max(1, len(earlier.snapshots))) as pool:
            return dict(zip(earlier.snapshots, pool.map(of, earlier.snapshots), strict=True))

    def lost(self, moment: Moment) -> str | None:
        """Why a moment is lost, or None. Raises Failed."""
        for each in moment.snapshots.values():
            why = snapshots.fill(self._run, each).lost
            if why is not None:
                return f"{each.path}: {why}"
        return None

    def drop(self, moment: Moment) -> None:
        """Remove a moment's snapshots, those that are still there. Raises Failed."""
        snapshots.remove(self._run, moment.snapshots.values())

    def sweep(self, keep: Moment | None) -> None:
        """Remove the job's snapshots, save a moment's: what killed runs left. Raises Failed."""
        kept = set() if keep is None else {each.uuid for each in keep.snapshots.values()}
        snapshots.remove(self._run, _others(snapshots.ours(self._run, self._job), kept))

    def _hold(self) -> Hold | None:
        if self._quiesce is not None:
            return self._quiesce.hold
        name = self._plan.guest.name
        tool = pausing_tool(self._run, name)
        return None if tool is None else Hold((tool, "pause", name), (tool, "unpause", name))


def pausing_tool(run: Run, guest: str) -> str | None:
    """The Xen toolstack that has this guest running, which can pause it; None if none has.

    Sources: xl(1), xm(1): `list NAME` ends a line with the state and the seconds of CPU time; the state's
    third letter is p while the guest is paused.
    """
    script = f"""for tool in xl xm; do
    command -v $tool >/dev/null || continue
    echo $tool; exec $tool list {shlex.quote(guest)} 2>/dev/null
done"""
    status, output = run(["sh", "-c", script])
    lines = output.decode(errors="replace").splitlines()
    rows = [line.split() for line in lines[1:]]
    running = [row for row in rows if len(row) > 2 and row[0] == guest and "p" not in row[-2]]
    return lines[0] if status == 0 and running else None


def runner(host: Host) -> Run:
    """A host as `blocksync.changes` runs commands on it."""

    def run(argv: Sequence[str]) -> tuple[int, bytes]:
        done = host.run(argv)
        return done.status, done.complaint.encode() if done.status else done.output

    return run


def job_name(guest: str) -> str:
    """The guest's name as snapshots and tags can carry it; another guest's never becomes the same."""
    if _SAFE.fullmatch(guest) and len(guest) <= _LONGEST_NAME:
        return guest
    digest = hashlib.sha256(guest.encode()).hexdigest()[:8]
    return f"{re.sub('[^a-zA-Z0-9_]', '_', guest)[: _LONGEST_NAME - 9]}-{digest}"


def _remembering(run: Run) -> Run:
    """Asks the same thing once: lvs takes seconds on an old host, and several volumes are of one group."""
    known: dict[tuple[str, ...], tuple[int, bytes]] = {}

    def ask(argv: Sequence[str]) -> tuple[int, bytes]:
        key = tuple(argv)
        if key not in known:
            known[key] = run(argv)
        return known[key]

    return ask


def _others(found: Iterable[lvm.LogicalVolume], kept: set[str]) -> list[lvm.LogicalVolume]:
    return [each for each in found if each.uuid not in kept]
