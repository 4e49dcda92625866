"""docs/formats.md says what the files are: a digest file is read here by the document alone."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from blocksync import passes
from blocksync.digests import digest_file
from blocksync.digests.hashes import HASHES
from blocksync.extents import Extents
from blocksync.passes import PassRequest
from blocksync.voice import LOG_FORMAT

DOCUMENT = (Path(__file__).parents[2] / "docs/formats.md").read_text()
DIGEST_FILE = DOCUMENT.split("\n## ")[1]
KIB = 1024
Image = Callable[[str, int], Path]


def fields(data: bytes) -> dict[str, int | bytes]:
    """The header's fields by the document's first table."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (bytes|u\d+) \| (\w+) \|", DIGEST_FILE, re.MULTILINE)
    found: dict[str, int | bytes] = {}
    for offset, size, kind, name in rows:
        piece = data[int(offset) : int(offset) + int(size)]
        found[name] = piece if kind == "bytes" else int.from_bytes(piece, "little")
    return found


@pytest.fixture
def data(image: Image, tmp_path: Path) -> bytes:
    """A digest file about more blocks than one chunk has, at an offset, with blocks of 4 KiB."""
    request = PassRequest(
        source=image("source", 4096 * 4 * KIB + 3 * 4096 + 77),
        target=tmp_path / "target",
        target_offset=63 * 512,
        digests=tmp_path / "digests",
        block_size=4096,
    )
    passes.run(request)
    return (tmp_path / "digests").read_bytes()


def test_the_header_reads_as_documented(data: bytes, tmp_path: Path) -> None:
    header = fields(data)
    assert header["magic"] == b"BSDIGEST"
    assert (header["version"], header["state"], header["hash"]) == (
        digest_file.VERSION,
        digest_file.BlockState.DONE,
        1,
    )
    assert header["generation"] == 1
    assert header["size"] == (tmp_path / "source").stat().st_size
    assert (header["target_offset"], header["block_size"]) == (63 * 512, 4096)
    assert header["checksum"] == xxhash.xxh3_128_digest(data[:4080])
    lengths = [int(header[name]) for name in ("source_length", "target_length", "stamp_length")]
    texts = data[106 : 106 + sum(lengths)].decode()
    inode = (tmp_path / "source").stat().st_ino
    assert texts[: lengths[0]] == f"file {tmp_path.resolve()}/source inode {inode}"
    assert texts[lengths[0] :].startswith(f"file {tmp_path.resolve()}/target inode ")
    assert not any(data[106 + sum(lengths) : 4080])


def test_the_checksums_and_the_table_read_as_documented(data: bytes, tmp_path: Path) -> None:
    source = (tmp_path / "source").read_bytes()
    blocks = [source[at : at + 4096] for at in range(0, len(source), 4096)]
    table = b"".join(map(xxhash.xxh3_128_digest, blocks))
    chunks = [table[at : at + 1024 * 16] for at in range(0, len(table), 1024 * 16)]
    sums = b"".join(map(xxhash.xxh3_128_digest, chunks))
    assert len(chunks) > 1
    # The first commit is to the second slot, whose room is for a bit a block as well.
    assert fields(data)["slot"] == 1
    assert data[8192:12288] == sums.ljust(4096, b"\0")
    assert fields(data)["sums_checksum"] == xxhash.xxh3_128_digest(sums)
    assert data[12288:] == table


def test_every_hash_and_state_is_documented() -> None:
    row = next(line for line in DOCUMENT.splitlines() if "| hash |" in line).split("|")[-2]
    assert [int(each.split()[0]) for each in row.split(",")] == [known.number for known in HASHES]
    row = next(line for line in DOCUMENT.splitlines() if "| state |" in line)
    for state in digest_file.BlockState:
        assert f"{int(state)} {state.name.lower().replace('_', ' ')}" in row


def test_the_extents_file_of_the_document_is_read_and_written() -> None:
    block = re.search(r"(?:^    .*\n)+", DOCUMENT[DOCUMENT.index("## Extents file") :], re.MULTILINE)
    assert block is not None
    text = re.sub(r"^    ", "", block[0], flags=re.MULTILINE)
    extents = Extents.from_text(text)
    assert extents.pairs() == [(1048576, 65536), (9437184, 4096)]
    assert extents.to_text() == text


def test_progress_lines_have_the_fields_of_the_document(image: Image, tmp_path: Path) -> None:
    table = DOCUMENT[DOCUMENT.index("## Progress lines") :]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE)
    documented = {name for row in rows for name in row.split(", ")} - {"field"}
    command = [Path(sys.executable).with_name("blocksync"), "sync", "--log-json"]
    done = subprocess.run(
        [*command, image("source", 100 * KIB), tmp_path / "target"],
        check=True,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    for line in done.stderr.splitlines():
        assert json.loads(line).keys() == documented
        assert json.loads(line)["format"] == LOG_FORMAT
