"""The guest's volumes as a source of passes: on this machine, or pulled from the Xen host."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blocksync import hashes, locations, passes, remote, verify
from blocksync.errors import Differences, Usage
from blocksync.extents import Extents
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Report
from blocksync.transports.choice import Kind, choose
from blocksync.transports.interface import Transport
from orchestrate.hosts import FarHost, Host, ThisHost


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a far Xen host is reached: auto, openssh, paramiko or tls; the fingerprint of its host key."""

    transport: Kind = "auto"
    host_key_fingerprint: str | None = None


class Source(Protocol):
    """Where the volumes are, and how their bytes get here."""

    @property
    def host(self) -> Host:
        """The machine with the volumes."""

    def copy(self, request: PassRequest, progress: Report) -> PassReport:
        """One pass, as `blocksync.passes.run`."""

    def prove(
        self,
        volume: Path,
        target: Path,
        offset: int,
        size: int,
        progress: Report,
        *,
        only: Extents | None = None,
    ) -> str:
        """Read both sides, completely or `only` some extents, compare them by a hash that nobody can forge or
        byte by byte, and say what was proven.

        Raises `Differences`.
        """


@dataclass(frozen=True, slots=True)
class Here:
    """Volumes of this machine."""

    host: Host = field(default_factory=ThisHost)

    def copy(self, request: PassRequest, progress: Report) -> PassReport:
        """As `Source.copy`."""
        return passes.run(request, progress=progress)

    def prove(
        self,
        volume: Path,
        target: Path,
        offset: int,
        size: int,
        progress: Report,
        *,
        only: Extents | None = None,
    ) -> str:
        """As `Source.prove`."""
        if only is not None:
            return _dry(self, _proving(volume, target, offset, size, only), progress)
        found = verify.compare(volume, target, target_offset=offset, size=size, progress=progress)
        if not found.equal:
            raise _differ(volume, found.differing.total)
        return f"BLAKE3 {found.source_root}"


@dataclass(frozen=True, slots=True)
class Far:
    """Volumes of the machine behind a transport."""

    transport: Transport

    @property
    def host(self) -> Host:
        """As `Source.host`."""
        return FarHost(self.transport)

    def copy(self, request: PassRequest, progress: Report) -> PassReport:
        """As `Source.copy`."""
        return remote.run(request, far="source", transport=self.transport, progress=progress)

    def prove(
        self,
        volume: Path,
        target: Path,
        offset: int,
        size: int,
        progress: Report,
        *,
        only: Extents | None = None,
    ) -> str:
        """As `Source.prove`."""
        return _dry(self, _proving(volume, target, offset, size, only), progress)


def _proving(volume: Path, target: Path, offset: int, size: int, only: Extents | None) -> PassRequest:
    """A dry pass that trusts no digest file, so that both ends read and hash all that it looks at."""
    return PassRequest(
        source=volume,
        target=target,
        target_offset=offset,
        size=size,
        only=only,
        hash=hashes.BLAKE3,
        dry_run=True,
    )


def _dry(source: Source, request: PassRequest, progress: Report) -> str:
    report = source.copy(request, progress)
    size = (
        report.size if request.only is None else request.only.aligned(request.block_size, report.size).total
    )
    if report.bytes_changed or report.bytes_total != size:
        raise _differ(request.source, report.bytes_changed)
    which = "all " if request.only is None else ""
    return f"{which}{-(-size // request.block_size)} blocks equal on both sides"


def _differ(volume: Path, differing: int) -> Differences:
    return Differences(
        volume,
        f"differs from its partition after the pass, by {differing} bytes",
        "is the guest still running on Xen, or did somebody write to the target? Run the same command again",
    )


@contextmanager
def opened(xen_host: str | None, reach: Reach) -> Iterator[Source]:
    """The source of a plan: `xen_host` as [user@]host[:port], None for this machine."""
    if xen_host is None:
        yield Here()
        return
    host = locations.parse(f"ssh://{xen_host}/-").host
    if host is None:
        raise Usage(xen_host, "is no host", "give [user@]host[:port]")
    transport = choose(host, kind=reach.transport, fingerprint=reach.host_key_fingerprint, notice=_say)
    try:
        yield Far(transport)
    finally:
        transport.close()


def _say(notice: str) -> None:
    print(f"note: {notice}", file=sys.stderr)
