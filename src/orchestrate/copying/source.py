"""The guest's volumes as a source of passes: on this machine, or pulled from the Xen host."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blocksync import locations, passes, remote, verify
from blocksync.digests import hashes
from blocksync.errors import BlocksyncError, Differences
from blocksync.extents import Extents
from blocksync.hosts.host import FarHost, Host, HostLost, ThisHost
from blocksync.hosts.idle_pool import Standby
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Report
from blocksync.remote import PassPart
from blocksync.remote.far_end import FarEnd
from blocksync.transports.failures import HostUnreachable
from blocksync.transports.interface import Channel, Transport
from blocksync.transports.reach import Reach
from blocksync.verify import Comparison
from blocksync.wire.link import Lost

# Each takes one of the sessions that sshd gives a connection: ten, if nobody changed that.
_MOST_WAITING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is to be proven: `size` bytes of a volume are equal to the target's from `offset` on; all of them,
    or `only` some extents of the volume.
    """

    volume: Path
    target: Path
    offset: int
    size: int
    progress: Report
    only: Extents | None = None

    def part(self) -> PassPart:
        """A dry pass that trusts no digest file, so that both ends read and hash all that it looks at."""
        request = PassRequest(
            source=self.volume,
            target=self.target,
            target_offset=self.offset,
            size=self.size,
            only=self.only,
            block_size=passes.BLOCK_SIZE,
            hash=hashes.BLAKE3,
            dry_run=True,
        )
        return PassPart(request, self.progress)

    def judge(self, report: PassReport) -> str:
        """What that pass has proven. Raises `Differences`."""
        whole, size = self.only is None, report.size
        if self.only is not None:
            size = self.only.aligned(report.block_size, report.size).total
        if report.bytes_changed or report.bytes_total != size:
            raise _differ(self.volume, report.bytes_changed)
        return f"{'all ' if whole else ''}{-(-size // report.block_size)} blocks equal on both sides"


Aside = Callable[[str], AbstractContextManager[None]]
"""Leaves the terminal to somebody else while something, by its name, is waited for."""


def not_aside(what: str) -> AbstractContextManager[None]:
    """Where nobody draws on the terminal."""
    del what
    return nullcontext()


class Reaching:
    """`transport`, which is aside while it starts a command: it may have to connect first."""

    def __init__(self, transport: Transport, aside: Aside) -> None:
        self._transport = transport
        self._aside = aside

    def run(self, argv: Sequence[str]) -> Channel:
        """As `Transport.run`."""
        with self._aside(f"reaching {self.describe()}"):
            return self._transport.run(argv)

    def close(self) -> None:
        """As `Transport.close`."""
        self._transport.close()

    def describe(self) -> str:
        """As `Transport.describe`."""
        return self._transport.describe()


class Source(Protocol):
    """Where the volumes are, and how their bytes get here."""

    @property
    def host(self) -> Host:
        """The machine with the volumes."""

    def make_ready(self, passes: int) -> None:
        """Start now what so many passes will need, which then begin at once. It costs nothing not to."""

    def copy_all(self, parts: Sequence[PassPart]) -> list[PassReport]:
        """A pass for each part, into ranges of one target; at the same time where that is faster.

        As `blocksync.passes.run` otherwise.
        """

    def prove_all(self, proofs: Sequence[Proof]) -> list[str]:
        """Read both sides, compare them by a hash that nobody can forge or byte by byte, and say what was
        proven of each. Raises `Differences`.
        """

    def send(self, request: PassRequest, progress: Report) -> PassReport:
        """A pass the other way: the request's target is a volume. As `blocksync.passes.run`."""

    def compare(self, here: Path, volume: Path, size: int, progress: Report) -> Comparison:
        """Compare `size` bytes of something here with a volume. As `blocksync.verify.compare`."""


@dataclass(frozen=True, slots=True)
class Here:
    """Volumes of this machine."""

    host: Host = field(default_factory=ThisHost)

    def make_ready(self, passes: int) -> None:
        """As `Source.make_ready`: nothing is started for a pass here."""

    def copy_all(self, parts: Sequence[PassPart]) -> list[PassReport]:
        """As `Source.copy_all`, one after the other: each pass keeps every core and the disks at work."""
        return [passes.run(part.request, progress=part.progress) for part in parts]

    def prove_all(self, proofs: Sequence[Proof]) -> list[str]:
        """As `Source.prove_all`."""
        return [self._prove(proof) for proof in proofs]

    def send(self, request: PassRequest, progress: Report) -> PassReport:
        """As `Source.send`."""
        return passes.run(request, progress=progress)

    def compare(self, here: Path, volume: Path, size: int, progress: Report) -> Comparison:
        """As `Source.compare`."""
        return verify.compare(here, volume, size=size, progress=progress)

    def _prove(self, proof: Proof) -> str:
        if proof.only is not None:
            return proof.judge(*self.copy_all([proof.part()]))
        found = verify.compare(
            proof.volume,
            proof.target,
            target_offset=proof.offset,
            size=proof.size,
            progress=proof.progress,
        )
        if not found.equal:
            raise _differ(proof.volume, found.differing.total)
        return f"BLAKE3 {found.source_root}"


class Far:
    """Volumes of the machine behind a transport. Its one `host` is for all: the shells there stay."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting: Standby[FarEnd] = Standby()
        self.host = FarHost(transport)

    def make_ready(self, passes: int) -> None:
        """As `Source.make_ready`: agents that wait there."""
        count = min(passes, _MOST_WAITING) - len(self._waiting)
        if count < 1:
            return
        with ThreadPoolExecutor(count) as pool:
            for started in [pool.submit(self._start) for _ in range(count)]:
                # A pass that finds none starts its own, and says what is wrong.
                with suppress(BlocksyncError):
                    self._waiting.give(started.result())

    def copy_all(self, parts: Sequence[PassPart]) -> list[PassReport]:
        """As `Source.copy_all`."""
        with self._lost_with_its_link():
            return remote.run_several(parts, transport=self._transport, meet=self._meet)

    def close(self) -> None:
        """End all that waits there; the transport is the caller's."""
        self._waiting.close()
        self.host.close()

    def _start(self) -> FarEnd:
        return FarEnd(self._transport, self._transport.describe())

    def _meet(self) -> FarEnd:
        return self._waiting.take() or self._start()

    def prove_all(self, proofs: Sequence[Proof]) -> list[str]:
        """As `Source.prove_all`."""
        reports = self.copy_all([proof.part() for proof in proofs])
        return [proof.judge(report) for proof, report in zip(proofs, reports, strict=True)]

    def send(self, request: PassRequest, progress: Report) -> PassReport:
        """As `Source.send`."""
        with self._lost_with_its_link():
            return remote.run(request, far="target", transport=self._transport, progress=progress)

    def compare(self, here: Path, volume: Path, size: int, progress: Report) -> Comparison:
        """As `Source.compare`."""
        with self._lost_with_its_link():
            return remote.compare(
                here, volume, size=size, far="target", transport=self._transport, progress=progress
            )

    @contextmanager
    def _lost_with_its_link(self) -> Iterator[None]:
        try:
            yield
        except (Lost, HostUnreachable) as error:
            raise HostLost.of(self._transport.describe(), error) from error


def _differ(volume: Path, differing: int) -> Differences:
    return Differences(
        volume,
        f"differs from its partition after the pass, by {differing} bytes",
        "is the guest still running on Xen, or did somebody write to the target? Run the same command again",
    )


@contextmanager
def opened(xen_host: str | None, reach: Reach, aside: Aside = not_aside) -> Iterator[Source]:
    """The source of a plan: `xen_host` as [user@]host[:port], None for this machine. While that is reached,
    its ssh may ask for a password: `aside` leaves it the terminal.
    """
    if xen_host is None:
        yield Here()
        return
    transport = Reaching(reach.connection(locations.host_named(xen_host)), aside)
    far = Far(transport)
    try:
        yield far
    finally:
        far.close()
        transport.close()
