"""Measure the user's own devices, and say which block size makes their passes cheap.

Small blocks write little beside what changed, and cost digests: 16 bytes a block, in memory, in the digest
file and on the wire. Large blocks are the opposite. What is best depends on how the changes lie, on the
devices and on the link; each is measured or stated, and one row of the table is recommended.
"""

import os
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocksync.devices import device as devices
from blocksync.devices import guards
from blocksync.devices import target as targets
from blocksync.devices.device import Device, Opened
from blocksync.errors import Failed, Usage
from blocksync.interruption import Stop, stop_on_signals
from blocksync.progress import Report
from blocksync.sizes import format_size
from blocksync.tuning import patterns, rates, watch
from blocksync.tuning.patterns import Pattern
from blocksync.tuning.rates import DIGEST, PAGE, Ground, Rates
from blocksync.tuning.watch import raise_if

BLOCK_SIZES = tuple(4096 << power for power in range(11))
SCRATCH = 64 * 2**20
# What is assumed where nothing changed while it was looked for.
ASSUMED = "0.5%:4KiB+0.5%:256KiB"
# Estimates this close to the fastest are as good.
CLOSE = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """What to measure. Offsets are in bytes, `link` in bytes a second (None: source and target on one host).

    `dirty` states how changes lie (see patterns.stated); None reads the source twice, `interval` seconds
    apart, and looks. `rewrite` allows writes on the target itself, which is given back the bytes it holds;
    without it they go to a scratch file beside a target that is a file.
    """

    source: Path
    target: Path
    target_offset: int = 0
    dirty: str | None = None
    interval: float = 10.0
    link: float | None = None
    rewrite: bool = False
    direct: bool = False
    cache: bool = False
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one block size comes to.

    `touched` (0 to 1) is the share of blocks that a pass writes, `sent` the bytes of them, with the digests
    where there is a link; `amplification` is `sent` against the bytes that changed. `digest_memory` is in
    bytes. `seconds` estimates a pass that has a digest file: good for comparing rows.
    """

    block_size: int
    rates: Rates
    touched: float
    sent: int
    amplification: float
    digest_memory: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The table for a source of `size` bytes, and the block size of the row that is recommended."""

    rows: tuple[Row, ...]
    block_size: int
    size: int
    pattern: str
    share: float
    link: float | None
    notes: tuple[str, ...]

    @property
    def recommended(self) -> Row:
        return next(row for row in self.rows if row.block_size == self.block_size)


def parse_link(text: str) -> float:
    """Bytes a second of a link as people name it: `100Mbit`, `1Gbit`. Raises Usage."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG])bit(?:/s)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise Usage(f"--link {text}", "is no link speed", "write for example 100Mbit or 1Gbit")
    return float(match[1]) * {"K": 1e3, "M": 1e6, "G": 1e9}[match[2].upper()] / 8


def parse_seconds(text: str) -> float:
    """Seconds, possibly with a fraction. Raises Usage."""
    if re.fullmatch(r"\d+(\.\d+)?", text) is None:
        raise Usage(f"--interval {text}", "is no number of seconds", "write for example 30")
    return float(text)


def run(request: TuneRequest, *, progress: Report | None = None) -> Tuning:
    """Measure for some ten seconds (and read the source twice, unless `dirty` is stated), and recommend.

    Raises Usage or Refused before anything is measured, Failed when a device fails, Interrupted after SIGINT
    or SIGTERM. The source is never written, the target only with `rewrite`.
    """
    stated = None if request.dirty is None else patterns.stated(request.dirty)
    source = devices.measure(request.source)
    if source.size < PAGE:
        raise Usage(source.path, f"has {source.size} bytes", f"name a volume of {PAGE} bytes at least")
    notes: list[str] = []
    with stop_on_signals() as stop, ExitStack() as stack:
        ground = stack.enter_context(_ground(request, source, notes))
        opened = stack.enter_context(devices.open_source(source, direct=_direct(request, source)))
        pattern = stated or _look(opened, request.interval, stop, progress, notes)
        rows = _rows(opened, ground, pattern, request.link, stop)
    return Tuning(
        rows=rows,
        block_size=recommend(rows).block_size,
        size=source.size,
        pattern=pattern.name,
        share=pattern.share,
        link=request.link,
        notes=tuple(notes),
    )


def recommend(rows: tuple[Row, ...]) -> Row:
    """Of the rows nearly as fast as the fastest, the one that sends and remembers the fewest bytes."""
    fastest = min(row.seconds for row in rows)
    close = [row for row in rows if row.seconds <= fastest * CLOSE]
    return min(close, key=lambda row: row.sent + row.digest_memory)


def _direct(request: TuneRequest, device: Device, offset: int = 0) -> bool:
    return devices.goes_direct(device, offset, direct=request.direct, cache=request.cache)


@contextmanager
def _ground(request: TuneRequest, source: Device, notes: list[str]) -> Iterator[Ground | None]:
    """Where writes are measured; None where they must not be."""
    if request.rewrite:
        with _target(request, source) as ground:
            yield ground
    elif request.target.is_block_device():
        notes.append("writes were not measured; --rewrite writes back to the target what it holds")
        yield None
    else:
        with _scratch(request) as ground:
            yield ground


@contextmanager
def _target(request: TuneRequest, source: Device) -> Iterator[Ground]:
    guards.check_overrides(request.overrides)
    target = devices.measure(request.target)
    guards.range_fits(target, request.target_offset, source.size)
    guards.not_the_source(source, target, request.target_offset, source.size)
    guards.out_of_reach(request.target, request.overrides)
    guards.not_in_use(target, request.overrides)
    exclusive = not guards.claims_waived(request.overrides)
    with targets.open_target(
        target, direct=_direct(request, target, request.target_offset), exclusive=exclusive
    ) as opened:
        yield Ground(opened, request.target_offset, source.size, borrowed=True)


@contextmanager
def _scratch(request: TuneRequest) -> Iterator[Ground]:
    """A file of its own, on the file system that the target is on or will be on."""
    folder = request.target.resolve().parent
    if not folder.is_dir():
        raise Usage(request.target, "is in a folder that does not exist", "make the folder first")
    guards.out_of_reach(request.target, request.overrides)
    try:
        fd, name = tempfile.mkstemp(prefix=".blocksync-tune-", dir=folder)
    except OSError as error:
        raise Usage(folder, f"takes no scratch file: {error.strerror}", "name another target") from error
    path = Path(name)
    try:
        _fill(fd, folder)
        device = devices.measure(path)
        with targets.open_target(device, direct=request.direct) as opened:
            yield Ground(opened, 0, SCRATCH, borrowed=False)
    finally:
        path.unlink()


def _fill(fd: int, folder: Path) -> None:
    # Written once before anything is measured: the first write to a block of a file also allocates it.
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            for _ in range(SCRATCH // BLOCK_SIZES[-1]):
                file.write(random.randbytes(BLOCK_SIZES[-1]))
            os.fsync(file.fileno())
    except OSError as error:
        need = format_size(SCRATCH)
        raise Failed(
            folder, f"has no room for a scratch file of {need}: {error.strerror}", "make room"
        ) from error


def _rows(
    source: Opened, ground: Ground | None, pattern: Pattern, link: float | None, stop: Stop
) -> tuple[Row, ...]:
    rows = []
    scan = rates.scanning(source)
    for block in BLOCK_SIZES:
        if block > source.device.size:
            break
        raise_if(stop)
        measured = rates.measure(source, ground, block, scan)
        rows.append(weigh(block, measured, source.device.size, pattern, link))
    return tuple(rows)


def weigh(block: int, measured: Rates, size: int, pattern: Pattern, link: float | None) -> Row:
    """What blocks of `block` bytes come to on a device of `size` bytes; `link` is in bytes a second."""
    digests = -(-size // block) * DIGEST
    touched = pattern.touched(block)
    written = round(size * touched)
    sent = written + (digests if link else 0)
    scanning = size / measured.scan + size / measured.hash
    writing = written / measured.write if measured.write else 0.0
    # Locally the same processors do both; over a link the slowest of three sets the pace.
    seconds = max(scanning, sent / link, writing) if link else scanning + writing
    return Row(
        block_size=block,
        rates=measured,
        touched=touched,
        sent=sent,
        amplification=sent / (size * pattern.share),
        digest_memory=digests,
        seconds=seconds,
    )


def _look(source: Opened, interval: float, stop: Stop, progress: Report | None, notes: list[str]) -> Pattern:
    found = watch.changed_pages(source, interval, stop, progress)
    if any(found.bits):
        return patterns.seen(found.bits, found.size, f"seen within {interval:g} s")
    notes.append(f"nothing changed within {interval:g} s; {ASSUMED} is assumed (--dirty states a pattern)")
    return patterns.stated(ASSUMED)


def table(tuning: Tuning) -> str:
    """The table and the recommendation as text."""
    link = "" if tuning.link is None else f", over {tuning.link * 8 / 1e9:g} Gbit/s"
    head = ("block", "read", "hash", "compare", "write", "touched", "sent", "times", "digests", "pass")
    lines = [head, *map(_cells, tuning.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"{format_size(tuning.size)}, changes {tuning.pattern} ({tuning.share:.3%} of it){link}"]
    text += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*text, _advice(tuning)])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        _short(row.block_size),
        *map(_rate, (row.rates.read, row.rates.hash, row.rates.compare, row.rates.write)),
        f"{row.touched:.2%}",
        format_size(row.sent),
        f"{row.amplification:.1f}",
        format_size(row.digest_memory),
        f"{row.seconds:.2f} s",
    )


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate / 1e9:.3g} GB/s"


def _advice(tuning: Tuning) -> str:
    row = tuning.recommended
    verb = "sent" if tuning.link else "written"
    return (
        f"recommended: --block-size {_short(row.block_size)}: digests take {format_size(row.digest_memory)}, "
        f"in memory and in the digest file; {format_size(row.sent)} a pass are {verb}, "
        f"{row.amplification:.1f} times what changed"
    )


def _short(size: int) -> str:
    return format_size(size).replace(" ", "")
