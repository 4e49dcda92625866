"""The guest's volumes as a source of passes: on this machine, or pulled from the Xen host."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blocksync import locations, passes, verify
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Report
from blocksync.transports.interface import Transport
from blocksync.verify import Comparison
from orchestrate.hosts import FarHost, Host, ThisHost


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a far Xen host is reached: auto, openssh, paramiko or tls; the fingerprint of its host key."""

    transport: str = "auto"
    host_key_fingerprint: str | None = None


class Source(Protocol):
    """Where the volumes are, and how their bytes get here."""

    @property
    def host(self) -> Host:
        """The machine with the volumes."""

    def copy(self, request: PassRequest, progress: Report) -> PassReport:
        """One pass, as `blocksync.passes.run`."""

    def compare(self, volume: Path, target: Path, offset: int, size: int, progress: Report) -> Comparison:
        """The proof, as `blocksync.verify.compare`."""


@dataclass(frozen=True, slots=True)
class Here:
    """Volumes of this machine."""

    host: Host = field(default_factory=ThisHost)

    def copy(self, request: PassRequest, progress: Report) -> PassReport:
        """As `Source.copy`."""
        return passes.run(request, progress=progress)

    def compare(self, volume: Path, target: Path, offset: int, size: int, progress: Report) -> Comparison:
        """As `Source.compare`."""
        return verify.compare(volume, target, target_offset=offset, size=size, progress=progress)


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
        # Imported late, here and below: a migration on one machine needs none of it.
        from blocksync import remote  # noqa: PLC0415

        return remote.run(request, transport=self.transport, far="source", progress=progress)

    def compare(self, volume: Path, target: Path, offset: int, size: int, progress: Report) -> Comparison:
        """As `Source.compare`."""
        from blocksync import remote  # noqa: PLC0415

        return remote.compare(
            volume, target, target_offset=offset, size=size, transport=self.transport, progress=progress
        )


@contextmanager
def opened(xen_host: str | None, reach: Reach) -> Iterator[Source]:
    """The source of a plan: `xen_host` as [user@]host[:port], None for this machine."""
    if xen_host is None:
        yield Here()
        return
    from blocksync.transports.choice import choose  # noqa: PLC0415

    host = locations.parse(f"ssh://{xen_host}/-").host
    transport = choose(host, kind=reach.transport, fingerprint=reach.host_key_fingerprint, notice=_say)
    try:
        yield Far(transport)
    finally:
        transport.close()


def _say(notice: str) -> None:
    print(f"note: {notice}", file=sys.stderr)
