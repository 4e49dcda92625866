"""What either direction does at the near end with a request: its range, digest file, terms and report."""

from dataclasses import dataclass, replace
from pathlib import Path

from blocksync._copy import count_runs
from blocksync.devices import device as devices
from blocksync.devices import guards
from blocksync.devices.device import Device
from blocksync.digests.digest_file import Binding, Digests
from blocksync.errors import BlocksyncError, Refused
from blocksync.passes import PassReport, PassRequest, fitting_block_size, require_memory
from blocksync.remote.watching import Whole
from blocksync.wire import extent_list, frames
from blocksync.wire.compression import CODECS
from blocksync.wire.extent_list import Pair
from blocksync.wire.frames import Terms
from blocksync.wire.messages import FarDevice, Start, StatedMark


@dataclass(frozen=True, slots=True)
class Scope:
    """A request over `size` bytes, with what both ends agree on for it. `pairs` None is all of it. `data` is
    how many bytes of the source are no holes, None where nobody knows.
    """

    request: PassRequest
    size: int
    terms: Terms
    pairs: list[Pair] | None
    data: int | None

    @classmethod
    def of(cls, request: PassRequest, source: Path | str, available: int, data: int | None = None) -> "Scope":
        """The scope of a request whose source has `available` bytes, as the host that has it says. Raises
        Refused when they are too few, or so many that what is remembered of them has no room here.
        """
        size = available if request.size is None else request.size
        if size > available:
            raise Refused(source, f"has {available} bytes, not {size}", "give a smaller --size", guard="size")
        request = replace(request, block_size=request.block_size or fitting_block_size(size))
        require_memory(source, size, request)
        terms = frames.terms(size, request.block_size, request.hash.size)
        pairs = None if request.only is None else request.only.aligned(request.block_size, size).pairs()
        return cls(request, size, terms, pairs, data)

    @property
    def extents(self) -> list[Pair]:
        return extent_list.of_pass(self.terms, self.pairs)

    @property
    def total(self) -> int:
        """Bytes that the pass looks at."""
        return sum(size for _, size in self.extents)

    @property
    def whole(self) -> Whole:
        """What its progress is measured by."""
        return Whole(self.total, self.data, self.request.bytes_per_second)

    def new_bitmap(self) -> bytearray:
        """One clear bit a block."""
        return bytearray(-(-self.terms.all_blocks // 8))

    def binding(self, source: str, target: str) -> Binding:
        """What the digest file of this pass is about."""
        return self.request.binding(self.size, source=source, target=target)

    def spans(self) -> list[Pair] | None:
        """The parts of the range whose digests the pass needs."""
        return self.request.digest_spans(self.size)

    def start(
        self,
        *,
        trusted: bool = False,
        wanted: Pair = (0, 0),
        known: frozenset[guards.Signature] = frozenset(),
    ) -> Start:
        """The message that starts the pass at the far end."""
        request = self.request
        return Start(
            size=self.size,
            target_offset=request.target_offset,
            block_size=request.block_size,
            hash=request.hash.name,
            compare=request.compare,
            dry_run=request.dry_run,
            direct=request.direct,
            cache=request.cache,
            trusted=trusted,
            wanted=wanted,
            extents=None if self.pairs is None else len(self.pairs),
            codecs=CODECS,
            bytes_per_second=request.bytes_per_second,
            known=tuple(StatedMark.of(signature) for signature in known),
            overrides=tuple(sorted(request.overrides)),
        )

    def is_complete(self, table: Digests) -> bool:
        """Whether a pass over these extents leaves the whole range as the source was."""
        return self.request.only is None or table.whole


@dataclass(frozen=True, slots=True, kw_only=True)
class NearOutcome:
    """What a pass did, in bytes, as the near end knows it."""

    read: int
    target_read: int
    changed: int
    written: int
    zeroed: int
    blocks: bytearray


def report(scope: Scope, outcome: NearOutcome, table: Digests | None, seconds: float) -> PassReport:
    """The same report as of a local pass."""
    return PassReport(
        bytes_total=scope.total,
        bytes_read=outcome.read,
        target_bytes_read=outcome.target_read,
        bytes_changed=outcome.changed,
        bytes_written=outcome.written,
        bytes_zeroed=outcome.zeroed,
        extents_written=count_runs(outcome.blocks, scope.terms.all_blocks),
        seconds=seconds,
        dry_run=scope.request.dry_run,
        notes=() if table is None else table.notes,
        compared_all=table is not None and bool(table.distrust),
        block_size=scope.request.block_size,
        changed_blocks=bytes(outcome.blocks),
        size=scope.size,
    )


def there(path: Path, far: FarDevice) -> Device | None:
    """The far device by its path on this machine, on which the far end runs too; None if it is not found."""
    try:
        device = devices.measure(path)
    except BlocksyncError:
        return None
    return device if device.number == far.number else None
