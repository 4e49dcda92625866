"""The digest file: what each block of a target range is known to hold.

It is a claim about the target, so it is committed only after the target's own fsync, and marked as in
progress, durably, before the first write of a pass. A file that is torn, foreign, or left in progress is
never trusted: the pass then compares everything. The format is in docs/formats.md.
"""

import itertools
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from blocksync._copy import xxh3_128
from blocksync.devices import sync_folder
from blocksync.errors import Failed, Usage
from blocksync.hashes import HASHES, XXH3, Hash

MAGIC = b"BSDIGEST"
VERSION = 1
HEADER_SIZE = 4096
CHECKSUM_SIZE = 16
SPOT_CHECKS = 12

# magic, version, state, generation, size, target offset, block size, hash, job, table checksum, text lengths
_HEADER = struct.Struct("<8sIIQQQII16s16sHH")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first 4096 bytes. `generation` counts commits; `job` is drawn when the file is made."""

    state: State
    generation: int
    job: bytes
    binding: Binding
    table_checksum: bytes = bytes(CHECKSUM_SIZE)

    def pack(self) -> bytes:
        texts = [
            text.encode("utf-8", "surrogateescape") for text in (self.binding.source, self.binding.target)
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
            self.table_checksum,
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
        ends = _HEADER.size, _HEADER.size + lengths[0], _HEADER.size + sum(lengths)
        source, target = (data[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise(ends))
        binding = Binding(
            source=source,
            target=target,
            size=size,
            target_offset=offset,
            block_size=block_size,
            hash=hashes[kind],
        )
        return cls(
            state=State(state), generation=generation, job=job, binding=binding, table_checksum=checksum
        )


class Untrusted(Exception):
    """Why a digest file is not believed; the pass then compares everything."""


@dataclass(slots=True)
class Digests:
    """The table of one target range, and the file that it came from and goes to.

    `table` holds one digest a block; all zero bytes mean that the block is not known. `distrust` says why
    an existing file was not believed ("" when it was, or when there was none).
    """

    path: Path
    header: Header
    table: mmap.mmap
    distrust: str = ""
    exists: bool = False

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
        self.table.close()
        self.table = _empty_table(self.header.binding)
        self.distrust = why

    def mark_in_progress(self) -> None:
        """Make durable that the table is no longer true. Call before the first write to the target."""
        marked = replace(self.header, state=State.IN_PROGRESS)
        if not self.exists:
            self._replace_file(marked, with_table=False)
            return
        # Torn or not, the old header is gone before the target changes; a torn one is not trusted either.
        with _failing(self.path), self.path.open("r+b", buffering=0) as file:
            _write_fully(file.fileno(), marked.pack())
            os.fsync(file.fileno())

    def commit(self, state: State) -> None:
        """Replace the file by the table as it is now. Call only after the target's fsync."""
        checksum = xxh3_128(memoryview(self.table)[: self.header.binding.table_size])
        self.header = replace(
            self.header, state=state, generation=self.header.generation + 1, table_checksum=checksum
        )
        self._replace_file(self.header, with_table=True)

    def _replace_file(self, header: Header, *, with_table: bool) -> None:
        fresh = self.path.with_name(f".{self.path.name}.new")
        with _failing(self.path, leftover=fresh):
            with fresh.open("wb", buffering=0) as file:
                _write_fully(file.fileno(), header.pack())
                if with_table:
                    _write_fully(file.fileno(), memoryview(self.table)[: header.binding.table_size])
                os.fsync(file.fileno())
            fresh.replace(self.path)
            sync_folder(self.path.parent)
        self.exists = True


def check_path(path: Path) -> None:
    """Raises Usage unless the path is a digest file, or can become one. Writes nothing."""
    if not path.parent.is_dir():
        raise Usage(path, "is in a folder that does not exist", "make the folder first")
    try:
        with path.open("rb", buffering=0) as file:
            start = os.pread(file.fileno(), len(MAGIC), 0)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Usage(path, f"cannot be read: {error.strerror}", "name another digest file") from error
    if start not in (MAGIC[: len(start)], bytes(len(start))):
        # Zeros are what a crash leaves of a file; anything else is somebody's, and not ours to replace.
        raise Usage(path, "is no digest file", "name another file; a missing one is made")


def load(path: Path, binding: Binding) -> Digests:
    """The digests of a range: from the file when it is sound and about this range, else all unknown.

    Raises Usage when it cannot be read.
    """
    fresh = Header(state=State.DONE, generation=0, job=os.urandom(16), binding=binding)
    try:
        with path.open("rb", buffering=0) as file:
            return _load(path, file.fileno(), binding)
    except FileNotFoundError:
        return Digests(path, fresh, _empty_table(binding))
    except Untrusted as why:
        return Digests(path, fresh, _empty_table(binding), distrust=str(why), exists=True)
    except OSError as error:
        raise Usage(path, f"cannot be read: {error.strerror}", "name another digest file") from error


def _load(path: Path, fd: int, binding: Binding) -> Digests:
    header = Header.unpack(os.pread(fd, HEADER_SIZE, 0))
    _check_binding(header.binding, binding)
    if header.state is State.IN_PROGRESS:
        raise Untrusted("was left by a pass that did not end: what it claims is verified against the target")
    length = binding.table_size
    if os.fstat(fd).st_size != HEADER_SIZE + length:
        raise Untrusted("is torn: its length does not fit its header")
    table = _empty_table(binding)
    with memoryview(table) as view, view[:length] as claims:
        _read_fully(fd, claims, HEADER_SIZE)
        if xxh3_128(claims) != header.table_checksum:
            raise Untrusted("is torn: its table does not match its checksum")
    return Digests(path, header, table, exists=True)


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


def _write_fully(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


@contextmanager
def _failing(path: Path, leftover: Path | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if leftover is not None:
            leftover.unlink(missing_ok=True)
        raise Failed(
            path, f"cannot be written: {error.strerror}", "make room or name another digest file"
        ) from error
