"""One source, one target with something around the range, one digest file, and what holds of them."""

import fcntl
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import xxhash
from blake3 import blake3

from blocksync.digests import digest_file
from blocksync.digests.digest_file import FileHeader, Untrusted
from blocksync.extents import Extents

# <linux/fs.h>
BLKFLSBUF = 0x1261


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncJob:
    """Sizes and offsets in bytes. `target` is a file, or a loop device over the file `backing`; `surround` is
    what it holds outside the range: before and after it. `only` are the extents that passes are about.
    """

    folder: Path
    target: Path
    size: int
    offset: int
    block_size: int = 4096
    surround: tuple[bytes, bytes] = field(default=(b"", b""), repr=False)
    only: Extents | None = None

    @classmethod
    def make(
        cls,
        folder: Path,
        random: Random,
        *,
        size: int,
        offset: int = 0,
        after: int = 0,
        block_size: int = 4096,
        attach: Callable[[Path], Path] = lambda backing: backing,
    ) -> "SyncJob":
        """A source that is part random, part zeros, and a target that holds something else altogether."""
        surround = random.randbytes(offset), random.randbytes(after)
        backing = folder / "target.img"
        (folder / "state").mkdir(parents=True, exist_ok=True)
        backing.write_bytes(surround[0] + random.randbytes(size) + surround[1])
        job = cls(
            folder=folder,
            target=attach(backing),
            size=size,
            offset=offset,
            block_size=block_size,
            surround=surround,
        )
        job.source.write_bytes(pattern(random, size))
        return job

    @property
    def source(self) -> Path:
        return self.folder / "source.img"

    @property
    def backing(self) -> Path:
        return self.folder / "target.img"

    @property
    def digests(self) -> Path:
        return self.folder / "state" / "volume.digests"

    @property
    def watch(self) -> list[tuple[str, str]]:
        """Roles for the interposer.

        Source, Target and what is Made beside it, their Parent; Digest file, the History and whatever is new
        beside it, their Folder.
        """
        state = self.digests.parent
        paths = (
            ("S", self.source),
            ("T", self.target),
            ("P", self.folder),
            ("D", self.digests),
            ("F", state),
            ("H", f"{state}/"),
            ("M", f"{self.folder}/"),
        )
        return [(role, str(path)) for role, path in paths]

    def argv(self, *more: object, digests: bool = True) -> list[object]:
        """The command line of a pass. The signature guard is left out: it starts a process, and has tests of
        its own.
        """
        words: list[object] = ["sync", self.source, self.target, "--json", "--override", "signature"]
        words += ["--target-offset", self.offset, "--size", self.size, "--block-size", self.block_size]
        if self.only is not None:
            # Beside the folder: what becomes of the calls on this file is not for the proofs.
            listed = self.folder.with_suffix(".extents")
            listed.write_text(self.only.to_text())
            words += ["--only", listed]
        return words + (["--digests", self.digests] if digests else []) + list(more)

    def held(self) -> bytes:
        """All bytes of the target, from where they are in the end."""
        if self.target != self.backing:
            fd = os.open(self.target, os.O_RDWR)
            try:
                os.fsync(fd)
                fcntl.ioctl(fd, BLKFLSBUF, 0)
            finally:
                os.close(fd)
        return self.backing.read_bytes()

    def put(self, target: bytes) -> None:
        """Make the target hold these bytes; it stays the same file, by which digest files know it."""
        self.held()
        rewrite(self.backing, target)

    def files(self) -> dict[Path, bytes]:
        """The target and whatever is in the folder of the digest file, as they are now."""
        paths = [self.backing, *sorted(self.digests.parent.iterdir())]
        return {path: path.read_bytes() for path in paths if path.exists()}

    def put_back(self, files: dict[Path, bytes]) -> None:
        """Make the files what `files()` said once, or what a crash left of them."""
        for path in self.digests.parent.iterdir():
            path.unlink()
        if self.backing in files:
            self.backing.touch()
            self.put(files[self.backing])
        else:
            self.backing.unlink(missing_ok=True)
        for path, content in files.items():
            if path != self.backing:
                path.write_bytes(content)

    def expected(self) -> bytes:
        """The target as a successful pass leaves it."""
        return self.surround[0] + self.source.read_bytes()[: self.size] + self.surround[1]

    def outside(self, target: bytes) -> tuple[bytes, bytes]:
        return target[: self.offset], target[self.offset + self.size :]

    def dirty(self, random: Random, writes: int) -> None:
        """Write here and there in the source, as a guest does: single bytes, blocks, runs, zeros."""
        data = bytearray(self.source.read_bytes())
        for _ in range(writes if data else 0):
            at = random.randrange(len(data))
            length = random.choice((1, 512, 4096, 30000, 200000))
            piece = bytes(length) if random.random() < 0.3 else random.randbytes(length)
            data[at : at + length] = piece[: len(data) - at]
        rewrite(self.source, data)

    def dirtied(self, random: Random, writes: int) -> "SyncJob":
        """The guest writes, and passes are from now on about these blocks, and about one besides."""
        before = self.source.read_bytes()
        self.dirty(random, writes)
        after, size = self.source.read_bytes(), self.block_size
        starts = range(0, len(after), size)
        changed = {at for at in starts if before[at : at + size] != after[at : at + size]}
        only = Extents.of((at, size) for at in {*changed, random.choice(starts)}).coalesce()
        return replace(self, only=only)

    def aimed_at(self) -> set[int]:
        """The blocks that passes are about."""
        rows = [] if self.only is None else self.only.aligned(self.block_size, self.size).pairs()
        return {
            at // self.block_size
            for offset, length in rows
            for at in range(offset, offset + length, self.block_size)
        }

    def lies(self, target: bytes, file: Path | None = None) -> list[int]:
        """The blocks of which a digest file that would be believed says something that `target` belies."""
        claimed = claims(self.digests if file is None else file)
        held = target[self.offset : self.offset + self.size]
        size = self.block_size
        blocks = ((i, held[i * size : (i + 1) * size]) for i in claimed)
        return [i for i, block in blocks if claimed[i] != digest(block, len(claimed[i]))]


def pattern(random: Random, size: int) -> bytes:
    """Random bytes with runs of zeros, long enough to become holes."""
    parts = []
    while size > 0:
        length = min(size, random.choice((4096, 20000, 70000, 300000)))
        parts.append(bytes(length) if random.random() < 0.35 else random.randbytes(length))
        size -= length
    return b"".join(parts)


def rewrite(path: Path, data: bytes | bytearray) -> None:
    """Replace a file's bytes and keep the file."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def digest(block: bytes, size: int = 16) -> bytes:
    """XXH3-128 (16 bytes) or BLAKE3 (32), by another implementation than the engine's."""
    return xxhash.xxh3_128_digest(block) if size == 16 else blake3(block).digest()


def claims(path: Path) -> dict[int, bytes]:
    """What a digest file says of each block it knows, if the engine would believe it; else {}.

    The engine's spot check on the target is left out on purpose: it would hide a lie most of the time.
    """
    try:
        with path.open("rb") as file:
            binding = FileHeader.unpack(file.read(digest_file.HEADER_SIZE)).binding
    except (FileNotFoundError, Untrusted):
        return {}
    loaded = digest_file.load(path, binding)
    if not loaded.trusted:
        return {}
    size = binding.hash.size
    table = bytes(loaded.table)
    entries = ((i, table[i * size : (i + 1) * size]) for i in range(binding.blocks))
    return {i: entry for i, entry in entries if any(entry)}


def flip(path: Path, bits: Iterable[int]) -> None:
    """Flip bits of a file."""
    data = bytearray(path.read_bytes())
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    rewrite(path, data)
