"""Links that are cut at every frame and in the middle of every frame, or stall there, once."""

import os
import time
from pathlib import Path

import pytest
from played_links import FAR_TO_NEAR, NEAR_TO_FAR, Cut, PlayedTransport

from blocksync import remote
from blocksync.errors import BlocksyncError, ExitCode
from blocksync.passes import PassReport, PassRequest
from blocksync.wire.messages import Role

BLOCK = 4096
MIB = 2**20
# Two segments and a tail.
SIZE = 2 * MIB + 3 * BLOCK + 100
LIMIT = 10.0


@pytest.fixture(params=["with digests", "without"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> "Job":
    return Job(tmp_path, with_digests=request.param == "with digests")


class Job:
    """A pass with some changes in every segment, to be done again and again from the same state."""

    def __init__(self, folder: Path, *, with_digests: bool) -> None:
        self._folder = folder
        self._source = folder / "source"
        self._target = folder / "target"
        self._digests = folder / "digests" if with_digests else None
        self._data = bytearray(os.urandom(SIZE))
        self._data[5 * BLOCK : 20 * BLOCK] = bytes(15 * BLOCK)
        self._old = bytearray(self._data)
        for block in (0, 3, 7, 256, 260, 300, 513):
            self._old[block * BLOCK : (block + 1) * BLOCK] = os.urandom(BLOCK)
        self._old[SIZE - 1 :] = b"?"
        self._around = os.urandom(BLOCK)

    @property
    def request(self) -> PassRequest:
        return PassRequest(
            source=self._source,
            target=self._target,
            target_offset=BLOCK,
            block_size=BLOCK,
            digests=self._digests,
        )

    def prepare(self, far: Role) -> None:
        """The state of a job that has had a pass, and a source that changed since."""
        for path in self._folder.iterdir():
            path.unlink()
        self._target.write_bytes(self._around + bytes(SIZE) + self._around)
        self._source.write_bytes(self._old[:SIZE])
        remote.run(self.request, far=far, transport=PlayedTransport())
        self._source.write_bytes(self._data)

    def is_copied(self) -> bool:
        held = self._target.read_bytes()
        return held == self._around + self._data + self._around

    def is_within(self) -> bool:
        """Whether every block of the target is an old one or a new one, and nothing else was touched."""
        held = self._target.read_bytes()
        if (held[:BLOCK], held[BLOCK + SIZE :]) != (self._around, self._around):
            return False
        blocks = range(0, SIZE, BLOCK)
        inside = held[BLOCK : BLOCK + SIZE]
        return all(
            inside[at : at + BLOCK] in (self._old[at : at + BLOCK], self._data[at : at + BLOCK])
            for at in blocks
        )

    def run(self, far: Role, transport: PlayedTransport, patience: float = 5.0) -> PassReport:
        return remote.run(self.request, far=far, transport=transport, patience=patience)


def cuts_of(job: Job, far: Role) -> list[Cut]:
    """Every place at which a pass can be cut."""
    job.prepare(far)
    whole = PlayedTransport()
    job.run(far, whole)
    return [
        Cut(direction, frame, middle)
        for direction in (FAR_TO_NEAR, NEAR_TO_FAR)
        for frame in range(len(whole.seen[direction]))
        for middle in (False, True)
    ]


@pytest.mark.parametrize("far", ["source", "target"])
def test_a_link_that_is_cut_anywhere_leaves_a_job_that_goes_on(job: Job, far: Role) -> None:
    cuts = cuts_of(job, far)
    assert len(cuts) >= 30
    reached = 0
    for cut in cuts:
        job.prepare(far)
        transport = PlayedTransport(cut)
        started = time.monotonic()
        try:
            job.run(far, transport)
        except BlocksyncError as error:
            assert error.exit_code in (ExitCode.FAILED, ExitCode.INTERRUPTED), cut
        else:
            # Only the farewell may be lost without anybody minding; and spot checks are drawn: with fewer of
            # them, the last frames do not come.
            assert not transport.was_cut or (far, cut.direction) == ("source", NEAR_TO_FAR), cut
            assert job.is_copied(), cut
        reached += transport.was_cut
        assert time.monotonic() - started < LIMIT, cut
        assert job.is_within(), cut
        job.run(far, PlayedTransport())
        assert job.is_copied(), cut
        last = job.run(far, PlayedTransport())
        assert last.bytes_changed == 0, cut
        assert job.is_copied(), cut
    assert reached >= len(cuts) - 12


@pytest.mark.parametrize("far", ["source", "target"])
@pytest.mark.parametrize("direction", [FAR_TO_NEAR, NEAR_TO_FAR])
@pytest.mark.parametrize("frame", [0, 1, 2, 3])
def test_a_link_that_stalls_is_given_up(tmp_path: Path, far: Role, direction: str, frame: int) -> None:
    job = Job(tmp_path, with_digests=True)
    job.prepare(far)
    started = time.monotonic()
    transport = PlayedTransport(Cut(direction, frame, middle=True, stalls=True))
    with pytest.raises(BlocksyncError) as caught:
        job.run(far, transport, patience=0.7)
    assert caught.value.exit_code in (ExitCode.FAILED, ExitCode.INTERRUPTED)
    assert "nothing moved" in str(caught.value)
    assert time.monotonic() - started < LIMIT
    job.run(far, PlayedTransport())
    assert job.is_copied()


def test_a_pull_that_was_cut_keeps_what_it_has_written(tmp_path: Path) -> None:
    job = Job(tmp_path, with_digests=True)
    job.prepare("source")
    whole = PlayedTransport()
    job.run("source", whole)
    job.prepare("source")
    last = len(whole.seen[FAR_TO_NEAR]) - 1
    with pytest.raises(BlocksyncError, match="what was written is durable") as caught:
        job.run("source", PlayedTransport(Cut(FAR_TO_NEAR, last, middle=False)))
    assert caught.value.exit_code is ExitCode.INTERRUPTED
    again = job.run("source", PlayedTransport())
    assert (again.bytes_changed, again.target_bytes_read, again.notes) == (0, 0, ())
    assert job.is_copied()
