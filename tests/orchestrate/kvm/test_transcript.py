"""A console's log of bounded size."""

from pathlib import Path

import pytest

from blocksync.errors import Usage
from orchestrate.kvm import transcript
from orchestrate.kvm.transcript import Transcript

KIB = 1024


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "LARGEST", 64 * KIB)
    monkeypatch.setattr(transcript, "HEAD", 16 * KIB)
    monkeypatch.setattr(transcript, "_TAIL", 16 * KIB)


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"%06d\n" % number for number in range(first, last))


def test_a_log_that_fits_has_every_byte(tmp_path: Path) -> None:
    log = Transcript(tmp_path / "console.log")
    for number in range(1000):
        log.write(b"%06d\n" % number)
    log.close()
    assert (tmp_path / "console.log").read_bytes() == numbered(0, 1000)
    assert log.end(14) == b"000998\n000999\n"
    assert (tmp_path / "console.log").stat().st_mode & 0o777 == 0o600


def test_of_a_longer_log_the_beginning_and_the_end_are_kept_and_a_line_counts_the_rest(
    tmp_path: Path,
) -> None:
    log, path = Transcript(tmp_path / "console.log"), tmp_path / "console.log"
    said = numbered(0, 100_000)
    for at in range(0, len(said), 1000):
        log.write(said[at : at + 1000])
        assert path.stat().st_size <= 64 * KIB
    log.close()
    head, _, rest = path.read_bytes().partition(b"\n[xen2kvm: ")
    count, _, tail = rest.partition(b" bytes are left out here]\n")
    assert head == said[: 16 * KIB]
    assert tail == said[-len(tail) :]
    assert len(tail) >= 16 * KIB
    # Nothing is missing that is not counted.
    assert len(head) + int(count) + len(tail) == len(said)


def test_a_log_never_follows_a_link(tmp_path: Path) -> None:
    other = tmp_path / "another guest's"
    other.write_bytes(b"precious")
    (tmp_path / "console.log").symlink_to(other)
    with pytest.raises(Usage, match="symbolic link"):
        Transcript(tmp_path / "console.log")
    assert other.read_bytes() == b"precious"
