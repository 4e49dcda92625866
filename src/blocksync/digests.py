"""The digest file: what each block of a target range is known to hold.

It is a claim about the target, so it is committed only after the target's own fsync, and marked as in
progress, durably, before the first write of a pass. A file that is torn, foreign, or left in progress is
never trusted: the pass then compares everything. The format is in docs/formats.md.
"""

import itertools
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from blocksync import own_files
from blocksync._copy import hash_blocks, xxh3_128
from blocksync.errors import Failed, Usage
from blocksync.hashes import HASHES, XXH3, Hash

MAGIC = b"BSDIGEST"
VERSION = 2
HEADER_SIZE = 4096
CHECKSUM_SIZE = 16
CHUNK_DIGESTS = 1024
SPOT_CHECKS = 12
WHAT = "a digest file"

# magic, version, state, generation, size, target offset, block size, hash, job, sums' checksum, text lengths
_HEADER = struct.Struct("<8sIIQQQII16s16sHHH")
_CHECKSUM_AT = HEADER_SIZE - CHECKSUM_SIZE
_TEXT_ROOM = _CHECKSUM_AT - _HEADER.size


class State(IntEnum):
    """What the table claims. DONE and PARTIAL tables are true; in PARTIAL some blocks may be unknown or
    behind the source.
    """

    IN_PROGRESS = 1
    PARTIAL = 2
    DONE = 3


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

    @property
    def sums_size(self) -> int:
        """Bytes of one checksum a chunk."""
        return self.chunks * CHECKSUM_SIZE

    @property
    def table_at(self) -> int:
        """Where the table starts in the file: behind the header and the checksums, on a page."""
        return HEADER_SIZE + -(-self.sums_size // HEADER_SIZE) * HEADER_SIZE

    @property
    def file_size(self) -> int:
        return self.table_at + self.table_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first 4096 bytes. `generation` counts commits; `job` is drawn when the file is made; `stamp` is the
    target's at the commit (see history.py).
    """

    state: State
    generation: int
    job: bytes
    binding: Binding
    sums_checksum: bytes = bytes(CHECKSUM_SIZE)
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
            *map(len, texts),
        )
        body = (fixed + b"".join(texts)).ljust(_CHECKSUM_AT, b"\0")
        return body + xxh3_128(body)

    @classmethod
    def unpack(cls, data: bytes) -> "Header":
        """Raises Untrusted, saying why."""
        if (
            len(data) != HEADER_SIZE
            or data[: len(MAGIC)] != MAGIC
            or xxh3_128(data[:_CHECKSUM_AT]) != data[_CHECKSUM_AT:]
        ):
            raise Untrusted("is torn: its header does not match its checksum")
        _, version, state, generation, size, offset, block_size, kind, job, checksum, *lengths = (
            _HEADER.unpack_from(data)
        )
        hashes = {known.number: known for known in HASHES}
        if version != VERSION or kind not in hashes or state not in State.__members__.values():
            raise Untrusted(
                f"has version {version}, state {state} and hash {kind}, which this release does not know"
            )
        if sum(lengths) > _TEXT_ROOM or block_size == 0:
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
            state=State(state),
            generation=generation,
            job=job,
            binding=binding,
            sums_checksum=checksum,
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
    it was, or when there was none); `marked` that the file is in
    progress.
    """

    path: Path
    header: Header
    table: mmap.mmap
    sums: bytearray
    chunks: list[int]
    distrust: str = ""
    exists: bool = False
    marked: bool = False

    @property
    def trusted(self) -> bool:
        return self.exists and not self.distrust

    def spot_check(self, read: Callable[[int, int], bytes]) -> None:
        """Look whether the target still holds what the table claims, in a few blocks; forget the table if
        not.

        `read(offset, length)` gives the target's bytes at an offset into the range. The blocks at both ends
        are always looked at: a file system that was mounted or made since then wrote there. This finds a
        stale file, such as one restored from a backup, most of the time and not always: it is a second line
        of defence.
        """
        binding = self.header.binding
        for block in _picks(binding.blocks):
            claim = self.table[block * binding.hash.size : (block + 1) * binding.hash.size]
            start = block * binding.block_size
            length = min(binding.block_size, binding.size - start)
            if any(claim) and binding.hash.digest(read(start, length)) != claim:
                self.forget(f"is stale: the target holds something else at {start}")
                return

    def forget(self, why: str) -> None:
        """Stop believing the table."""
        binding = self.header.binding
        self.table.close()
        self.table = _empty_table(binding)
        self.sums = bytearray(binding.sums_size)
        self.distrust = why

    def mark_in_progress(self) -> None:
        """Make durable that the table is no longer true. Call before the first write to the target.

        A file that was not believed is replaced by an empty one that is in progress.
        """
        if self.marked:
            return
        header = replace(self.header, state=State.IN_PROGRESS)
        if self.trusted:
            # A header torn by a crash is not trusted either.
            with _failing(self.path), own_files.opened(self.path, os.O_RDWR, WHAT) as fd:
                own_files.write_fully(fd, header.pack())
                os.fsync(fd)
        else:
            self._begin(header)
        self.marked = True

    def commit(self, state: State, stamp: str) -> None:
        """Bring the file in line with the table. Call only after the target's fsync; `stamp` is its stamp
        then.

        The file is in progress, durably, while its table changes, and gets a header that is trusted only
        after the table itself is durable.
        """
        self.mark_in_progress()
        with _failing(self.path), own_files.opened(self.path, os.O_RDWR, WHAT) as fd:
            self._write_chunks(fd)
            os.fsync(fd)
            self.header = replace(
                self.header,
                state=state,
                generation=self.header.generation + 1,
                sums_checksum=xxh3_128(self.sums),
                stamp=stamp,
            )
            own_files.write_fully(fd, self.header.pack())
            os.fsync(fd)

    def bring_in_line(self, state: State, stamp: str, *, learned: bool) -> None:
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
        own_files.write_fully(fd, self.sums, HEADER_SIZE)

    def _begin(self, header: Header) -> None:
        """Put an empty file with this header in place, durably."""
        with _failing(self.path), own_files.fresh(self.path) as (fd, name, folder):
            own_files.write_fully(fd, header.pack())
            os.truncate(fd, header.binding.file_size)
            os.fsync(fd)
            # It may have become another thing since the pass began.
            check_path(self.path)
            os.rename(name, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)


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
        return length <= Header.unpack(head).binding.file_size
    except Untrusted:
        return True


def load(path: Path, binding: Binding, spans: list[tuple[int, int]] | None = None) -> Digests:
    """The digests of a range: from the file when it is sound and about this range, else all unknown.

    `spans`, as (offset, length) in bytes, limits what is read to the digests of these parts of the range.
    Raises Usage when the file cannot be read.
    """
    chunks = _chunks(binding, spans)
    header = Header(state=State.DONE, generation=0, job=os.urandom(16), binding=binding)
    unknown = Digests(path, header, _empty_table(binding), bytearray(binding.sums_size), chunks)
    try:
        with own_files.opened(path, os.O_RDONLY, WHAT) as fd:
            return _load(path, fd, binding, chunks)
    except FileNotFoundError:
        return unknown
    except Untrusted as why:
        return replace(unknown, distrust=str(why), exists=True)
    except OSError as error:
        raise Usage(path, f"cannot be read: {error.strerror}", "name another digest file") from error


def _load(path: Path, fd: int, binding: Binding, chunks: list[int]) -> Digests:
    header = Header.unpack(os.pread(fd, HEADER_SIZE, 0))
    _check_binding(header.binding, binding)
    if header.state is State.IN_PROGRESS:
        raise Untrusted("was left by a pass that did not end: what it claims is verified against the target")
    if os.fstat(fd).st_size != binding.file_size:
        raise Untrusted("is torn: its length does not fit its header")
    sums = bytearray(binding.sums_size)
    _read_fully(fd, memoryview(sums), HEADER_SIZE)
    if xxh3_128(sums) != header.sums_checksum:
        raise Untrusted("is torn: its checksums do not match their own")
    table = _empty_table(binding)
    with memoryview(table) as view:
        # What is unknown in the file is unknown in the table already.
        for first, last in _runs(chunk for chunk in chunks if any(sums[_slots(chunk, chunk)])):
            place = binding.part(first, last)
            with view[place] as entries:
                _read_fully(fd, entries, binding.table_at + place.start)
                if _checksums(entries, binding.chunk_size) != sums[_slots(first, last)]:
                    raise Untrusted("is torn: its table does not match its checksums")
    return Digests(path, header, table, sums, chunks, exists=True)


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


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(
            path, f"cannot be written: {error.strerror}", "make room or name another digest file"
        ) from error
