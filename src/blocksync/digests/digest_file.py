"""The digest file: what each block of a target range is known to hold.

It is a claim about the target, so it is committed only after the target's own fsync, and marked as in
progress, durably, before the first write of a pass. A file that is torn, foreign, or left in progress is
never trusted: the pass then compares everything. A pass over some extents marks the file within these: what
it says of other blocks stays true, whatever becomes of the pass. The format is in docs/formats.md.
"""

import itertools
import mmap
import os
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from blocksync import own_files
from blocksync._copy import hash_blocks, xxh3_128
from blocksync.digests.hashes import HASHES, XXH3, Hash
from blocksync.errors import Failed, Usage

MAGIC = b"BSDIGEST"
VERSION = 3
HEADER_SIZE = 4096
CHECKSUM_SIZE = 16
CHUNK_DIGESTS = 1024
SPOT_CHECKS = 12
WHAT = "a digest file"
# Where no stamp can tell whether somebody else wrote.
MORE_SPOT_CHECKS = 64

# magic, version, state, generation, size, target offset, block size, hash, job, checksums of the sums and of
# the touched blocks, slot, rest, text lengths
_HEADER = struct.Struct("<8sIIQQQII16s16s16sHHHHH")
_CHECKSUM_AT = HEADER_SIZE - CHECKSUM_SIZE
_TEXT_ROOM = _CHECKSUM_AT - _HEADER.size


class BlockState(IntEnum):
    """What the table claims. DONE and PARTIAL tables are true; in PARTIAL some blocks may be unknown or
    behind the source. A table WITHIN is true but for the blocks that a pass was about to touch.
    """

    IN_PROGRESS = 1
    PARTIAL = 2
    DONE = 3
    WITHIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a digest file is about: identities of source and target, size and target offset in bytes, block
    size.
    """

    source: str
    target: str
    size: int
    target_offset: int
    block_size: int
    hash: Hash = XXH3

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block_size)

    @property
    def table_size(self) -> int:
        """Bytes of a table of one digest a block."""
        return self.blocks * self.hash.size

    @property
    def chunks(self) -> int:
        """How many chunks of CHUNK_DIGESTS digests the table has; the last may be shorter."""
        return -(-self.blocks // CHUNK_DIGESTS)

    @property
    def chunk_size(self) -> int:
        """Bytes of the table in a chunk."""
        return CHUNK_DIGESTS * self.hash.size

    def part(self, first: int, last: int) -> slice:
        """Where chunks `first` to `last` are in the table, in bytes."""
        return slice(first * self.chunk_size, min((last + 1) * self.chunk_size, self.table_size))

    def blocks_of(self, chunk: int) -> range:
        """The blocks whose digests are in a chunk."""
        return range(chunk * CHUNK_DIGESTS, min((chunk + 1) * CHUNK_DIGESTS, self.blocks))

    @property
    def sums_size(self) -> int:
        """Bytes of one checksum a chunk."""
        return self.chunks * CHECKSUM_SIZE

    @property
    def touched_size(self) -> int:
        """Bytes of one bit a block."""
        return -(-self.blocks // 8)

    def slot_at(self, slot: int) -> int:
        """Where one of the two slots starts in the file: checksums, and behind them a bit a block."""
        return HEADER_SIZE + slot * -(-(self.sums_size + self.touched_size) // HEADER_SIZE) * HEADER_SIZE

    @property
    def table_at(self) -> int:
        """Where the table starts in the file: behind the header and the slots, on a page."""
        return self.slot_at(2)

    @property
    def file_size(self) -> int:
        return self.table_at + self.table_size


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """The first 4096 bytes. `generation` counts commits; `job` is drawn when the file is made; `stamp` is the
    target's at the commit (see history.py). `slot` is the one that counts; `rest` is, in a file WITHIN, the
    state of all that was not touched.
    """

    state: BlockState
    generation: int
    job: bytes
    binding: Binding
    sums_checksum: bytes = bytes(CHECKSUM_SIZE)
    touched_checksum: bytes = bytes(CHECKSUM_SIZE)
    slot: int = 0
    rest: BlockState = BlockState.PARTIAL
    stamp: str = ""

    def pack(self) -> bytes:
        texts = [
            text.encode("utf-8", "surrogateescape")
            for text in (self.binding.source, self.binding.target, self.stamp)
        ]
        if sum(map(len, texts)) > _TEXT_ROOM:
            raise Usage(self.binding.target, "has a name too long for a digest file", "use a shorter path")
        fixed = _HEADER.pack(
            MAGIC,
            VERSION,
            self.state,
            self.generation,
            self.binding.size,
            self.binding.target_offset,
            self.binding.block_size,
            self.binding.hash.number,
            self.job,
            self.sums_checksum,
            self.touched_checksum,
            self.slot,
            self.rest,
            *map(len, texts),
        )
        body = (fixed + b"".join(texts)).ljust(_CHECKSUM_AT, b"\0")
        return body + xxh3_128(body)

    @classmethod
    def unpack(cls, data: bytes) -> "FileHeader":
        """Raises Untrusted, saying why."""
        if (
            len(data) != HEADER_SIZE
            or data[: len(MAGIC)] != MAGIC
            or xxh3_128(data[:_CHECKSUM_AT]) != data[_CHECKSUM_AT:]
        ):
            raise Untrusted("is torn: its header does not match its checksum")
        _, version, state, generation, size, offset, block_size, kind, job, *more = _HEADER.unpack_from(data)
        checksum, touched, slot, rest, *lengths = more
        hashes = {known.number: known for known in HASHES}
        states = BlockState.__members__.values()
        if version != VERSION or kind not in hashes or state not in states or rest not in states:
            raise Untrusted(
                f"has version {version}, state {state} and hash {kind}, which this release does not know"
            )
        if sum(lengths) > _TEXT_ROOM or block_size == 0 or slot > 1:
            raise Untrusted("has lengths that cannot be")
        ends = itertools.accumulate(lengths, initial=_HEADER.size)
        source, target, stamp = (
            data[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise(ends)
        )
        binding = Binding(
            source=source,
            target=target,
            size=size,
            target_offset=offset,
            block_size=block_size,
            hash=hashes[kind],
        )
        return cls(
            state=BlockState(state),
            generation=generation,
            job=job,
            binding=binding,
            sums_checksum=checksum,
            touched_checksum=touched,
            slot=slot,
            rest=BlockState(rest),
            stamp=stamp,
        )


class Untrusted(Exception):
    """Why a digest file is not believed; the pass then compares everything."""


@dataclass(slots=True)
class Digests:
    """The table of one target range, and the file that it came from and goes to.

    `table` holds one digest a block; all zero bytes mean that the block is not known. `sums` holds one
    checksum a chunk of the table as it is in the file; zero for a chunk that is all zero. `chunks` are those
    that were read, and that a commit looks at. `distrust` says why an existing file was not believed ("" when
    it was, or when there was none); `marked` that the file is in progress.

    `within` has a bit for each block that the pass may write, None for all of them; `touched` one for each of
    which the file says that a pass which did not end may have written it. `whole`: a pass over the blocks
    `within` leaves the whole range as the source is.
    """

    path: Path
    header: FileHeader
    table: mmap.mmap
    sums: bytearray
    chunks: list[int]
    distrust: str = ""
    exists: bool = False
    marked: bool = False
    within: int | None = None
    touched: int = 0
    whole: bool = True
    was_killed: bool = False

    @property
    def trusted(self) -> bool:
        return self.exists and not self.distrust

    @property
    def is_settled(self) -> bool:
        """Whether the file is trusted, and the last pass by it ended."""
        return self.trusted and not self.was_killed

    @property
    def is_doubted(self) -> bool:
        """Whether there is a file, of a pass that may have left in the page cache what never reached the
        disk.
        """
        return self.exists and not self.is_settled

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of a file that was not believed, or not altogether."""
        if self.distrust:
            return (f"digest file {self.path} {self.distrust}; everything was compared",)
        if self.was_killed:
            cause = "was left by a pass that did not end: it is believed outside the extents of that pass"
            return (f"digest file {self.path} {cause}",)
        return ()

    def spot_check(self, read: Callable[[int, int], bytes], *, thorough: bool = False) -> None:
        """Look whether the target still holds what the table claims, in a few blocks; forget the table if
        not.

        `read(offset, length)` gives the target's bytes at an offset into the range. The blocks at both ends
        are always looked at: a file system that was mounted or made since then wrote there. This finds a
        stale file, such as one restored from a backup, most of the time and not always: it is a second line
        of defence. `thorough` where it is the only one.
        """
        binding = self.header.binding
        try:
            picks = {*_picks(binding.blocks), *(self._known_picks() if thorough else ())}
        except Untrusted as why:
            self.forget(str(why))
            return
        for block in sorted(picks):
            claim = self._claim(block)
            start = block * binding.block_size
            length = min(binding.block_size, binding.size - start)
            if any(claim) and binding.hash.digest(read(start, length)) != claim:
                self.forget(f"is stale: the target holds something else at {start}")
                return

    def _claim(self, block: int) -> bytes:
        size = self.header.binding.hash.size
        return self.table[block * size : (block + 1) * size]

    def _known_picks(self) -> Iterator[int]:
        """Blocks at random among all that are known, whether their chunks were read before or not."""
        known = [chunk for chunk in range(len(self.sums) // CHECKSUM_SIZE) if any(self._sum(chunk))]
        chosen = random.choices(known, k=MORE_SPOT_CHECKS) if known else []
        missing = sorted({*chosen} - {*self.chunks})
        with _reading(self.path) as fd:
            self.read(fd, missing)
        self.chunks = sorted({*self.chunks, *missing})
        for chunk in chosen:
            blocks = [block for block in self.header.binding.blocks_of(chunk) if any(self._claim(block))]
            yield from random.sample(blocks, min(1, len(blocks)))

    def read(self, fd: int, chunks: list[int]) -> None:
        """Read sorted chunks of the table from its file, without the blocks that were touched. Raises
        Untrusted.

        A chunk with touched blocks may be half overwritten, by a commit that did not end: then nothing is
        known of it, and `sums` says so.
        """
        binding = self.header.binding
        with memoryview(self.table) as view:
            # What is unknown in the file is unknown in the table already.
            for first, last in _runs(chunk for chunk in chunks if any(self._sum(chunk))):
                place = binding.part(first, last)
                with view[place] as entries:
                    _read_fully(fd, entries, binding.table_at + place.start)
                    found = _checksums(entries, binding.chunk_size)
                if found != self.sums[_slots(first, last)]:
                    self._forget_half_written(first, found)
        self._forget_touched(chunks)

    def _forget_half_written(self, first: int, found: bytearray) -> None:
        """Of chunks from `first` on whose checksums are `found`, those that are other ones than should be."""
        binding = self.header.binding
        touched = _touched_chunks(binding, self.touched)
        for chunk, at in enumerate(range(0, len(found), CHECKSUM_SIZE), first):
            if found[at : at + CHECKSUM_SIZE] == self._sum(chunk):
                continue
            if chunk not in touched:
                raise Untrusted("is torn: its table does not match its checksums")
            part = binding.part(chunk, chunk)
            self.table[part] = bytes(part.stop - part.start)
            self.sums[_slots(chunk, chunk)] = bytes(CHECKSUM_SIZE)

    def _forget_touched(self, chunks: list[int]) -> None:
        binding, size = self.header.binding, self.header.binding.hash.size
        bits = self.touched.to_bytes(binding.touched_size, "little")
        for chunk in _touched_chunks(binding, self.touched).intersection(chunks):
            for block in binding.blocks_of(chunk):
                if bits[block // 8] >> block % 8 & 1:
                    self.table[block * size : (block + 1) * size] = bytes(size)

    def _sum(self, chunk: int) -> bytearray:
        return self.sums[_slots(chunk, chunk)]

    def forget(self, why: str) -> None:
        """Stop believing the table."""
        binding = self.header.binding
        self.table.close()
        self.table = _empty_table(binding)
        self.sums = bytearray(binding.sums_size)
        self.distrust = why
        self.touched = 0
        self.whole = self.within is None

    def mark_in_progress(self) -> None:
        """Make durable that the table is no longer true: all of it, or where a limited pass may write. Call
        before the first write to the target.

        A file that was not believed is replaced by an empty one that is in progress.
        """
        if self.marked:
            return
        if not self.trusted:
            self.header = replace(self.header, state=BlockState.IN_PROGRESS)
            self._begin(self.header)
        elif self.within is None:
            # A header torn by a crash is not trusted either.
            with _failing(self.path), own_files.opened(self.path, os.O_RDWR, WHAT) as fd:
                self._put_header(fd, replace(self.header, state=BlockState.IN_PROGRESS))
        else:
            self._mark_within(self.within)
        self.marked = True

    def _mark_within(self, within: int) -> None:
        """Until its header is written the file is what it was: what is new goes where nothing counts."""
        header = self.header
        self.touched |= within
        touched = self.touched.to_bytes(header.binding.touched_size, "little")
        header = replace(
            header,
            state=BlockState.WITHIN,
            rest=header.rest if header.state is BlockState.WITHIN else header.state,
            slot=1 - header.slot,
            sums_checksum=xxh3_128(self.sums),
            touched_checksum=xxh3_128(touched),
        )
        with _failing(self.path), own_files.opened(self.path, os.O_RDWR, WHAT) as fd:
            _write_changed(fd, self.sums + touched, header.binding.slot_at(header.slot))
            os.fsync(fd)
            self._put_header(fd, header)

    def _put_header(self, fd: int, header: FileHeader) -> None:
        own_files.write_fully(fd, header.pack())
        os.fsync(fd)
        self.header = header

    def commit(self, state: BlockState, stamp: str) -> None:
        """Bring the file in line with the table. Call only after the target's fsync; `stamp` is its stamp
        then.

        The file is in progress, durably, while its table changes, and gets a header that is trusted only
        after the table itself is durable.
        """
        self.mark_in_progress()
        header = replace(
            self.header,
            state=state,
            generation=self.header.generation + 1,
            slot=1 - self.header.slot,
            touched_checksum=bytes(CHECKSUM_SIZE),
            stamp=stamp,
        )
        with _failing(self.path), own_files.opened(self.path, os.O_RDWR, WHAT) as fd:
            self._write_chunks(fd)
            _write_changed(fd, self.sums, header.binding.slot_at(header.slot))
            os.fsync(fd)
            self._put_header(fd, replace(header, sums_checksum=xxh3_128(self.sums)))

    def bring_in_line(self, state: BlockState, stamp: str, *, learned: bool) -> None:
        """Commit, unless the file says the same already: nothing was `learned` of blocks, nothing written."""
        touched = learned or self.marked or not self.trusted
        if touched or (self.header.state, self.header.stamp) != (state, stamp):
            self.commit(state, stamp)

    def _write_chunks(self, fd: int) -> None:
        binding = self.header.binding
        with memoryview(self.table) as table:
            for first, last in _runs(self.chunks):
                with table[binding.part(first, last)] as entries:
                    sums = _checksums(entries, binding.chunk_size)
                for chunk in range(first, last + 1):
                    if sums[_slots(chunk - first, chunk - first)] != self.sums[_slots(chunk, chunk)]:
                        place = binding.part(chunk, chunk)
                        with table[place] as entries:
                            own_files.write_fully(fd, entries, binding.table_at + place.start)
                self.sums[_slots(first, last)] = sums

    def _begin(self, header: FileHeader) -> None:
        """Put an empty file with this header in place, durably."""
        with _failing(self.path), own_files.fresh(self.path) as (fd, name, folder):
            own_files.write_fully(fd, header.pack())
            os.truncate(fd, header.binding.file_size)
            os.fsync(fd)
            # It may have become another thing since the pass began.
            check_path(self.path)
            os.rename(name, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)


def is_one(path: Path) -> bool:
    """Whether a path is a digest file, torn or not. Follows no link, opens nothing but a regular file."""
    try:
        with own_files.opened(path, os.O_RDONLY, WHAT) as fd:
            return os.pread(fd, len(MAGIC), 0) == MAGIC
    except (OSError, Usage):
        return False


def check_path(path: Path) -> None:
    """Raises Usage unless the path is a digest file, or can become one. Writes nothing."""
    if own_files.require_regular(path, WHAT) is None:
        return
    try:
        with own_files.opened(path, os.O_RDONLY, WHAT) as fd:
            is_ours = _is_ours(os.pread(fd, HEADER_SIZE, 0), os.fstat(fd).st_size)
    except OSError as error:
        raise Usage(path, f"cannot be read: {error.strerror}", "name another digest file") from error
    if not is_ours:
        raise Usage(path, "is no digest file", "name another file; a missing one is made")


def _is_ours(head: bytes, length: int) -> bool:
    """Whether a file that begins with `head` and has this length may be replaced.

    A crash leaves a whole file: it was flushed before it got its name. What may be torn is a header that was
    written over an older one, and both begin with the magic. So a file of zeros is somebody's: many file
    systems and every new image begin with them.
    """
    if length == 0:
        return True
    if len(head) < HEADER_SIZE or not head.startswith(MAGIC):
        return False
    try:
        return length <= FileHeader.unpack(head).binding.file_size
    except Untrusted:
        return True


def load(path: Path, binding: Binding, spans: list[tuple[int, int]] | None = None) -> Digests:
    """The digests of a range: from the file when it is sound and about this range, else all unknown.

    `spans`, as (offset, length) in bytes, limits what is read to the digests of these parts of the range.
    Raises Usage when the file cannot be read.
    """
    chunks = _chunks(binding, spans)
    within = None if spans is None else _blocks(binding, spans)
    header = FileHeader(state=BlockState.DONE, generation=0, job=os.urandom(16), binding=binding)
    unknown = Digests(
        path,
        header,
        _empty_table(binding),
        bytearray(binding.sums_size),
        chunks,
        within=within,
        whole=within is None,
    )
    try:
        with _reading(path) as fd:
            return _load(path, fd, binding, chunks, within)
    except FileNotFoundError:
        return unknown
    except Untrusted as why:
        return replace(unknown, distrust=str(why), exists=True)


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    try:
        with own_files.opened(path, os.O_RDONLY, WHAT) as fd:
            yield fd
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Usage(path, f"cannot be read: {error.strerror}", "name another digest file") from error


def _load(path: Path, fd: int, binding: Binding, chunks: list[int], within: int | None) -> Digests:
    header = FileHeader.unpack(os.pread(fd, HEADER_SIZE, 0))
    _check_binding(header.binding, binding)
    if header.state is BlockState.IN_PROGRESS:
        raise Untrusted("was left by a pass that did not end: what it claims is verified against the target")
    if os.fstat(fd).st_size != binding.file_size:
        raise Untrusted("is torn: its length does not fit its header")
    sums = bytearray(binding.sums_size)
    _read_fully(fd, memoryview(sums), binding.slot_at(header.slot))
    if xxh3_128(sums) != header.sums_checksum:
        raise Untrusted("is torn: its checksums do not match their own")
    is_within = header.state is BlockState.WITHIN
    touched = _read_touched(fd, header) if is_within else 0
    # What was touched and is not known any more has to be written by the commit, wherever the pass looks.
    chunks = sorted({*chunks, *_touched_chunks(binding, touched)})
    rest = header.rest if is_within else header.state
    found = Digests(
        path,
        header,
        _empty_table(binding),
        sums,
        chunks,
        exists=True,
        within=within,
        touched=touched,
        whole=within is None or (rest is BlockState.DONE and not touched & ~within),
        was_killed=is_within,
    )
    found.read(fd, chunks)
    return found


def _read_touched(fd: int, header: FileHeader) -> int:
    """One bit for each block that a pass was about which did not end. Raises Untrusted."""
    binding = header.binding
    bits = bytearray(binding.touched_size)
    _read_fully(fd, memoryview(bits), binding.slot_at(header.slot) + binding.sums_size)
    if xxh3_128(bits) != header.touched_checksum:
        raise Untrusted("is torn: what a pass was about does not match its checksum")
    return int.from_bytes(bits, "little")


def _blocks(binding: Binding, spans: list[tuple[int, int]]) -> int:
    """One bit for each block of which a part is in `spans`."""
    bits = bytearray(binding.touched_size)
    for offset, length in spans:
        first = offset // binding.block_size
        last = min(-(-(offset + length) // binding.block_size), binding.blocks)
        while first < last and first % 8:
            bits[first // 8] |= 1 << first % 8
            first += 1
        while first < last and last % 8:
            last -= 1
            bits[last // 8] |= 1 << last % 8
        bits[first // 8 : last // 8] = b"\xff" * (last // 8 - first // 8)
    return int.from_bytes(bits, "little")


def _touched_chunks(binding: Binding, touched: int) -> set[int]:
    """The chunks in which blocks are touched: one bit a block."""
    if not touched:
        return set()
    bits = touched.to_bytes(binding.touched_size, "little")
    size = CHUNK_DIGESTS // 8
    return {chunk for chunk in range(binding.chunks) if any(bits[chunk * size : (chunk + 1) * size])}


def _chunks(binding: Binding, spans: list[tuple[int, int]] | None) -> list[int]:
    if spans is None or not binding.chunks:
        return list(range(binding.chunks))
    reach = CHUNK_DIGESTS * binding.block_size
    # Both ends belong to every pass: the spot check looks there.
    chosen = {0, binding.chunks - 1}
    for offset, length in spans:
        chosen.update(range(offset // reach, -(-(offset + length) // reach)))
    return sorted(chosen)


def _runs(chunks: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted chunks as runs of neighbours: the first and the last of each."""
    runs: list[tuple[int, int]] = []
    for chunk in chunks:
        first = runs.pop()[0] if runs and runs[-1][1] == chunk - 1 else chunk
        runs.append((first, chunk))
    return runs


def _slots(first: int, last: int) -> slice:
    """Where the checksums of chunks `first` to `last` are among all, in bytes."""
    return slice(first * CHECKSUM_SIZE, (last + 1) * CHECKSUM_SIZE)


def _checksums(entries: memoryview, chunk_size: int) -> bytearray:
    """XXH3-128 of each chunk of a part of the table; zero for one that is all unknown."""
    count = -(-len(entries) // chunk_size)
    sums = bytearray(count * CHECKSUM_SIZE)
    hash_blocks(entries, len(entries), chunk_size, sums, 0)
    unknown = {xxh3_128(bytes(length)) for length in (chunk_size, len(entries) % chunk_size)}
    for chunk in range(count):
        if bytes(sums[_slots(chunk, chunk)]) in unknown:
            sums[_slots(chunk, chunk)] = bytes(CHECKSUM_SIZE)
    return sums


def _picks(blocks: int) -> list[int]:
    """Blocks for a spot check: both ends, and some at random."""
    rolls = struct.unpack(f"<{SPOT_CHECKS}Q", os.urandom(8 * SPOT_CHECKS))
    picks = {0, 1, 2, blocks - 1, *(roll % blocks for roll in rolls)} if blocks else set()
    return sorted(pick for pick in picks if pick < blocks)


def _check_binding(found: Binding, wanted: Binding) -> None:
    for name in ("source", "target", "size", "target_offset", "block_size", "hash"):
        then, now = getattr(found, name), getattr(wanted, name)
        if then != now:
            raise Untrusted(f"is about another {name.replace('_', ' ')}: {_shown(then)}, not {_shown(now)}")


def _shown(value: object) -> object:
    return value.name if isinstance(value, Hash) else value


def _empty_table(binding: Binding) -> mmap.mmap:
    # Anonymous pages cost nothing until a digest is known.
    return mmap.mmap(-1, max(binding.table_size, 1))


def _read_fully(fd: int, into: memoryview, offset: int) -> None:
    got = 0
    while got < len(into):
        count = os.preadv(fd, [into[got:]], offset + got)
        if count == 0:
            raise Untrusted("is torn: it ends early")
        got += count


def _write_changed(fd: int, data: bytes | bytearray, offset: int) -> None:
    """Write the pages that differ from what is there: of a large range few do, and holes stay holes."""
    there = os.pread(fd, len(data), offset)
    for at in range(0, len(data), HEADER_SIZE):
        page = data[at : at + HEADER_SIZE]
        if page != there[at : at + HEADER_SIZE]:
            own_files.write_fully(fd, page, offset + at)


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(
            path, f"cannot be written: {error.strerror}", "make room or name another digest file"
        ) from error
