"""Whatever becomes of a digest file's bytes: no crash, and nothing is believed that was not committed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from sync_job import SyncJob

from blocksync import passes
from blocksync.digests import digest_file
from blocksync.digests.digest_file import HEADER_SIZE, Binding, FileHeader
from blocksync.digests.hashes import BLAKE3, XXH3
from blocksync.errors import Usage
from blocksync.passes import PassRequest

BUDGETS = [
    pytest.param(settings(max_examples=250, derandomize=True), id="ci"),
    pytest.param(settings(max_examples=50_000), id="long", marks=pytest.mark.long),
]
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
Edit = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Sound:
    """A digest file as a pass committed it: some blocks known, some not, with chunks of both kinds."""

    content: bytes
    binding: Binding
    table: bytes


@pytest.fixture(scope="module", params=[XXH3, BLAKE3], ids=["xxh3", "blake3"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    job = SyncJob.make(tmp_path_factory.mktemp("sound"), Random(7), size=3_000_001, offset=512)
    passes.run(
        PassRequest(
            source=job.source,
            target=job.target,
            target_offset=job.offset,
            size=job.size,
            digests=job.digests,
            block_size=job.block_size,
            hash=request.param,
        )
    )
    content = job.digests.read_bytes()
    binding = FileHeader.unpack(content[:HEADER_SIZE]).binding
    loaded = digest_file.load(job.digests, binding)
    assert loaded.trusted
    return Sound(content, binding, bytes(loaded.table))


places = st.floats(0, 1, exclude_max=True)
# Most of the file is table, most of the meaning is in the header and the checksums behind it.
early = st.one_of(places, places.map(lambda place: place / 10), places.map(lambda place: place / 100))


# What becomes of the bytes: (data, a place, another place, a few bytes) to data.
SPOILERS: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "flip": lambda data, at, _, piece: data[:at] + bytes([data[at] ^ 1 << piece[0] % 8]) + data[at + 1 :],
    "replace": lambda data, at, _, piece: data[:at] + piece + data[at + len(piece) :],
    "insert": lambda data, at, _, piece: data[:at] + piece + data[at:],
    "delete": lambda data, at, _, piece: data[:at] + data[at + len(piece) :],
    "zero": lambda data, at, _, __: data[: at & ~511] + bytes(512) + data[(at & ~511) + 512 :],
    "cut": lambda data, at, _, __: data[:at],
    "grow": lambda data, _, __, piece: data + piece,
    "copy": lambda data, at, other, _: data[:at] + data[other : other + 512] + data[at + 512 :],
}


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """One way to spoil a file: bits flipped, bytes replaced, put in or taken out, zeroed, cut, grown."""
    kind = draw(st.sampled_from(sorted(SPOILERS)))
    at, other, piece = draw(early), draw(early), draw(st.binary(min_size=1, max_size=40))
    return lambda data: SPOILERS[kind](data, int(at * len(data)), int(other * len(data)), piece)


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_was_not_committed_is_not_believed(sound: Sound, tmp_path: Path, budget: settings) -> None:
    path = tmp_path / "digests"
    sums_at = sound.binding.slot_at(FileHeader.unpack(sound.content[:HEADER_SIZE]).slot)
    sums = slice(sums_at, sums_at + sound.binding.sums_size)

    @settings(budget, **QUIET)
    @given(st.lists(edits(), min_size=1, max_size=3))
    def spoil(spoilers: list[Edit]) -> None:
        content = sound.content
        for spoiler in spoilers:
            content = spoiler(content or b"\0")
        path.write_bytes(content)
        loaded = digest_file.load(path, sound.binding)
        if loaded.trusted:
            # The other slot and what is behind the checksums mean nothing; all other bytes are as they were.
            assert len(content) == len(sound.content)
            for meant in (slice(HEADER_SIZE), sums, slice(sound.binding.table_at, None)):
                assert content[meant] == sound.content[meant]
            assert bytes(loaded.table) == sound.table
        else:
            assert loaded.distrust
            assert not any(bytes(loaded.table))

    spoil()


@pytest.mark.parametrize("budget", BUDGETS)
def test_bytes_from_anywhere_are_refused_or_not_believed(
    sound: Sound, tmp_path: Path, budget: settings
) -> None:
    path = tmp_path / "digests"

    @settings(budget, **QUIET)
    @given(st.one_of(st.binary(max_size=200), st.binary(max_size=9000).map(lambda tail: b"BSDIGEST" + tail)))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            digest_file.check_path(path)
        except Usage:
            assert content
        else:
            assert not content or (content.startswith(b"BSDIGEST") and len(content) >= HEADER_SIZE)
        assert not digest_file.load(path, sound.binding).trusted

    read()


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_sound_header_about_something_else_is_not_believed(
    sound: Sound, tmp_path: Path, budget: settings
) -> None:
    """Headers with right checksums and any numbers in them, before the right table."""
    path = tmp_path / "digests"
    numbers = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 4096, 65536, 2**63 - 1, 2**64 - 1]))
    header = FileHeader.unpack(sound.content[:HEADER_SIZE])

    @settings(budget, **QUIET)
    @given(
        numbers,
        numbers,
        st.integers(0, 2**32 - 1),
        st.text(max_size=50),
        st.sampled_from(list(digest_file.BlockState)),
    )
    def read(size: int, offset: int, block_size: int, target: str, state: digest_file.BlockState) -> None:
        binding = Binding(
            source=sound.binding.source, target=target, size=size, target_offset=offset, block_size=block_size
        )
        other = FileHeader(
            state=state,
            generation=header.generation,
            job=header.job,
            binding=binding,
            sums_checksum=header.sums_checksum,
            stamp=header.stamp,
        )
        path.write_bytes(other.pack() + sound.content[HEADER_SIZE:])
        assert not digest_file.load(path, sound.binding).trusted

    read()
