"""Passes and proofs between ends that are given as locations, one of which is on another host."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blocksync import locations
from blocksync.agent import bootstrap
from blocksync.errors import Usage
from blocksync.hosts.name import HostName
from blocksync.locations import Location
from blocksync.transports.early import Early
from blocksync.transports.interface import Transport
from blocksync.transports.reach import Reach

if TYPE_CHECKING:
    from blocksync.passes import PassReport, PassRequest
    from blocksync.progress import Report
    from blocksync.verify import Comparison

# What a pass needs is loaded while the connection is made.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What is compared, in bytes, and how it is read; as in a PassRequest."""

    target_offset: int = 0
    size: int | None = None
    direct: bool = False
    cache: bool = False


def sync(source: str, target: str, request: "PassRequest", reach: Reach, progress: "Report") -> "PassReport":
    """A pass from one location to another; see blocksync.remote.run. Raises Usage unless one end is here."""
    start, end = locations.parse(source), locations.parse(target)
    host = _the_other_host(start, end)
    with _reached(host, reach) as transport:
        from blocksync.remote.passes import run

        return run(
            replace(request, source=start.path, target=end.path),
            far="target" if start.host is None else "source",
            transport=transport,
            name=str(host),
            progress=progress,
        )


def verify(source: str, target: str, span: Span, reach: Reach, progress: "Report") -> "Comparison":
    """Compare a source with a target; see blocksync.remote.compare. Raises Usage unless one is here."""
    start, end = locations.parse(source), locations.parse(target)
    host = _the_other_host(start, end)
    with _reached(host, reach) as transport:
        from blocksync.remote.comparing import compare

        return compare(
            start.path,
            end.path,
            target_offset=span.target_offset,
            size=span.size,
            direct=span.direct,
            cache=span.cache,
            far="target" if start.host is None else "source",
            transport=transport,
            name=str(host),
            progress=progress,
        )


def _the_other_host(source: Location, target: Location) -> HostName:
    hosts = [end.host for end in (source, target) if end.host is not None]
    if len(hosts) != 1:
        raise Usage(f"{source} and {target}", "are both on other hosts", "run this on one of the two hosts")
    return hosts[0]


@contextmanager
def _reached(host: HostName, reach: Reach) -> Iterator[Transport]:
    transport = Early(reach.connection(host), bootstrap.argv())
    try:
        yield transport
    finally:
        transport.close()
