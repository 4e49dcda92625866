"""A digest file is believed only when it is sound and about this very range."""

import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from blocksync import passes
from blocksync.digests import digest_file, history
from blocksync.digests.digest_file import Binding, BlockState
from blocksync.digests.hashes import BLAKE3, XXH3
from blocksync.digests.trust import Settlement
from blocksync.errors import Failed, Usage
from blocksync.extents import Extents
from blocksync.passes import PassReport, PassRequest

MIB = 2**20
# What a pass over so little has, where none is asked for.
BLOCK = 16384
Image = Callable[[str, int], Path]


class Job:
    """A source, a target and a digest file that a pass has brought in line."""

    def __init__(self, image: Image, folder: Path) -> None:
        self.source = image("source", 4 * MIB + 700)
        self.target = folder / "target"
        self.digests = folder / "digests"

    def sync(self, **options: object) -> PassReport:
        request = PassRequest(source=self.source, target=self.target, digests=self.digests)
        report = passes.run(replace(request, **options))  # type: ignore[arg-type]
        assert self.target.read_bytes()[: len(self.source.read_bytes())] == self.source.read_bytes()
        return report

    def change_target(self, offset: int) -> None:
        with self.target.open("r+b") as file:
            file.seek(offset)
            file.write(b"somebody else wrote this")


@pytest.fixture
def job(image: Image, tmp_path: Path) -> Job:
    job = Job(image, tmp_path)
    job.sync()
    return job


def test_a_sound_file_saves_reading_the_target(job: Job) -> None:
    report = job.sync()
    assert (report.target_bytes_read, report.notes) == (0, ())


def test_nothing_changed_leaves_the_file_as_it_is(job: Job) -> None:
    before = job.digests.stat()
    job.sync()
    assert job.digests.stat() == before or job.digests.stat().st_ino == before.st_ino


@pytest.mark.parametrize("at", [0, 8, 12, 16, 30, 31, 41, 46, 100, 4095, 8192, 12288 + 16 * 64])
def test_one_wrong_byte_anywhere_means_a_full_compare_with_a_message(job: Job, at: int) -> None:
    data = bytearray(job.digests.read_bytes())
    data[at] ^= 1
    job.digests.write_bytes(data)
    if at < 8:
        with pytest.raises(Usage, match="is no digest file"):
            job.sync()
        return
    report = job.sync()
    assert report.target_bytes_read == 4 * MIB + 700
    assert "torn" in report.notes[0]
    assert job.sync().notes == ()


@pytest.mark.parametrize("length", [0, 4096, 8200, 12288 + 16])
def test_a_file_cut_short_means_a_full_compare_with_a_message(job: Job, length: int) -> None:
    os.truncate(job.digests, length)
    assert "torn" in job.sync().notes[0]
    assert job.sync().notes == ()


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"block_size": 4096}, "block size"),
        ({"size": MIB}, "size"),
        ({"hash": BLAKE3}, "hash"),
    ],
)
def test_a_file_about_another_pass_means_a_full_compare_with_a_message(
    job: Job, options: dict[str, object], reason: str
) -> None:
    assert f"another {reason}" in job.sync(**options).notes[0]
    assert job.sync(**options).notes == ()


def test_a_file_about_another_target_is_not_believed(job: Job, image: Image) -> None:
    job.target.rename(job.target.with_name("elsewhere"))
    job.target = image("target", 4 * MIB + 700)
    assert "another target" in job.sync().notes[0]


def test_a_file_about_another_source_is_not_believed(job: Job, image: Image) -> None:
    job.source = image("another source", 4 * MIB + 700)
    assert "another source" in job.sync().notes[0]


def test_a_pass_that_did_not_end_is_verified_and_not_believed(job: Job) -> None:
    binding = digest_file.FileHeader.unpack(job.digests.read_bytes()[:4096]).binding
    digest_file.load(job.digests, binding).mark_in_progress()
    job.change_target(MIB)
    report = job.sync()
    assert "did not end" in report.notes[0]
    assert report.bytes_changed == BLOCK
    assert job.sync().notes == ()


def test_a_target_whose_start_was_written_by_another_is_noticed(job: Job) -> None:
    job.change_target(1024)
    assert "stale" in job.sync().notes[0]


def test_a_mark_that_cannot_be_made_durable_stops_the_pass_before_its_first_write(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(image, tmp_path)
    job.target.write_bytes(bytes(4 * MIB + 700))

    def full(fd: int, data: object, offset: int) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(Failed, match="No space"):
            job.sync()
    assert job.target.read_bytes() == bytes(4 * MIB + 700)
    assert not job.digests.exists()
    job.sync()


def test_an_only_pass_keeps_what_it_did_not_look_at(job: Job) -> None:
    data = bytearray(job.source.read_bytes())
    data[MIB] ^= 1
    job.source.write_bytes(data)
    report = job.sync(only=Extents.of([(MIB, 1)]))
    assert (report.bytes_changed, report.target_bytes_read) == (BLOCK, 0)
    assert job.sync().bytes_changed == 0


@pytest.mark.parametrize("hash_", [XXH3, BLAKE3], ids=lambda hash_: hash_.name)
def test_the_table_holds_the_digest_of_every_block(image: Image, tmp_path: Path, hash_: object) -> None:
    import xxhash
    from blake3 import blake3

    job = Job(image, tmp_path)
    job.sync(hash=hash_)
    data = job.source.read_bytes()
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    make = (
        (lambda block: xxhash.xxh3_128(block).digest()) if hash_ is XXH3 else (lambda b: blake3(b).digest())
    )
    assert job.digests.read_bytes()[12288:] == b"".join(map(make, blocks))


def test_generations_count_commits_and_the_job_stays(job: Job) -> None:
    first = digest_file.FileHeader.unpack(job.digests.read_bytes()[:4096])
    job.source.write_bytes(os.urandom(4 * MIB + 700))
    job.sync()
    second = digest_file.FileHeader.unpack(job.digests.read_bytes()[:4096])
    assert (first.generation, second.generation) == (1, 2)
    assert (first.job, first.state) == (second.job, BlockState.DONE) == (second.job, second.state)


def test_a_header_comes_back_as_it_was_written() -> None:
    binding = Binding(
        source="s" * 900, target="ä\udcff", size=2**62, target_offset=512, block_size=4096, hash=BLAKE3
    )
    header = digest_file.FileHeader(
        state=BlockState.PARTIAL, generation=2**63, job=bytes(range(16)), binding=binding
    )
    assert digest_file.FileHeader.unpack(header.pack()) == header


def test_the_source_or_target_is_never_taken_for_a_digest_file(job: Job) -> None:
    blank, new = job.target.with_name("blank"), job.target.with_name("new")
    blank.write_bytes(b"")
    for request in (
        PassRequest(source=job.source, target=blank, digests=blank),
        PassRequest(source=blank, target=job.target, digests=blank),
        PassRequest(source=job.source, target=new, digests=new),
        PassRequest(source=job.source, target=new, digests=new.parent / "." / "new"),
    ):
        with pytest.raises(Usage, match="is the source or the target itself"):
            passes.run(request)
    assert blank.read_bytes() == b""
    assert not new.exists()


def zeros(path: Path) -> None:
    path.write_bytes(bytes(16384))


def sparse_image(path: Path) -> None:
    path.touch()
    os.truncate(path, 64 * MIB)


def text(path: Path) -> None:
    path.write_text("BSDIGEST is what these files begin with\n")


def image_over_a_digest_file(path: Path) -> None:
    """Somebody copied a digest file to the start of an image."""
    binding = Binding(source="s", target="t", size=MIB, target_offset=0, block_size=4096)
    header = digest_file.FileHeader(state=BlockState.DONE, generation=1, job=bytes(16), binding=binding)
    path.write_bytes(header.pack() + os.urandom(MIB))


def file_system(*command: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        sparse_image(path)
        subprocess.run([*command, path], check=True, capture_output=True)

    return make


PRECIOUS: dict[str, Callable[[Path], None]] = {
    "ext4": file_system("mkfs.ext4", "-q", "-F"),
    "swap": file_system("mkswap"),
    "a new image": sparse_image,
    "zeros": zeros,
    "text with the magic": text,
    "an image over a digest file": image_over_a_digest_file,
    "the magic alone": lambda path: path.write_bytes(digest_file.MAGIC),
    "a tar archive": lambda path: path.write_bytes(
        b"name".ljust(257, b"\0") + b"ustar\x0000".ljust(20000, b"\0")
    ),
}


@pytest.mark.parametrize("kind", PRECIOUS)
def test_nothing_but_a_digest_file_is_ever_replaced_by_one(image: Image, tmp_path: Path, kind: str) -> None:
    job = Job(image, tmp_path)
    PRECIOUS[kind](job.digests)
    before = job.digests.read_bytes()
    with pytest.raises(Usage, match="is no digest file"):
        job.sync()
    assert job.digests.read_bytes() == before
    assert not job.target.exists(), "refused before anything else"


def no_file(path: Path, kind: str) -> None:
    precious = path.with_name("precious")
    precious.write_bytes(bytes(16384))
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(precious)
        case "dangling link":
            path.symlink_to(path.with_name("nowhere"))
        case "folder":
            path.mkdir()
        case "block device":
            # A stand-in that leads to no device of this machine.
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(240, 77))
        case "character device":
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


NO_FILES = ["pipe", "link", "dangling link", "folder", "block device", "character device"]


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_regular_file_is_never_a_digest_file_and_stays(
    image: Image, tmp_path: Path, kind: str
) -> None:
    job = Job(image, tmp_path)
    no_file(job.digests, kind)
    before = job.digests.lstat()
    with pytest.raises(Usage):
        job.sync()
    after = job.digests.lstat()
    assert (after.st_mode, after.st_ino, after.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)
    assert (tmp_path / "precious").read_bytes() == bytes(16384)
    assert not job.target.exists(), "refused before anything else"


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_history_is_a_regular_file_and_no_link_is_followed(job: Job, kind: str) -> None:
    binding = digest_file.FileHeader.unpack(job.digests.read_bytes()[:4096]).binding
    past = history.path_of(job.digests, binding.target)
    past.unlink()
    no_file(past, kind)
    before = job.target.read_bytes()
    job.source.write_bytes(os.urandom(4 * MIB + 700))
    with pytest.raises(Usage):
        passes.run(PassRequest(source=job.source, target=job.target, digests=job.digests))
    assert job.target.read_bytes() == before
    assert job.digests.with_name("precious").read_bytes() == bytes(16384)


def test_a_new_digest_file_has_a_name_that_nobody_can_lie_in_wait_for(image: Image, tmp_path: Path) -> None:
    job = Job(image, tmp_path)
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    for name in (".digests.new", "digests.new", ".digests.tmp"):
        (tmp_path / name).symlink_to(precious)
    job.sync()
    assert precious.read_bytes() == b"precious"
    assert stat.S_IMODE(job.digests.stat().st_mode) == 0o600


@pytest.mark.parametrize("far", ["source", "target"])
def test_a_pass_between_hosts_refuses_a_foreign_digest_file_before_it_connects(
    job: Job, far: str, tmp_path: Path
) -> None:
    from blocksync import remote
    from local_transport import Local

    transport = Local(("sh", "-c", f"touch {tmp_path}/connected; false"))
    precious = tmp_path / "precious"
    sparse_image(precious)
    request = PassRequest(source=job.source, target=tmp_path / "new", digests=precious)
    with pytest.raises(Usage, match="is no digest file"):
        remote.run(request, far=far, transport=transport)  # type: ignore[arg-type]
    assert not (tmp_path / "connected").exists()
    assert not (tmp_path / "new").exists()


def killed_over(job: Job, extents: Extents, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over extents that wrote, and then was killed."""

    class Killed(BaseException):
        pass

    def dies(_: Settlement) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Settlement, "settle", dies)
        request = PassRequest(source=job.source, target=job.target, digests=job.digests, only=extents)
        with pytest.raises(Killed):
            passes.run(request)


def change_source(job: Job, *places: int) -> Extents:
    data = bytearray(job.source.read_bytes())
    for place in places:
        data[place] ^= 1
    job.source.write_bytes(data)
    return Extents.of((place, 1) for place in places)


def test_a_killed_pass_over_extents_costs_these(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    extents = change_source(job, MIB, 3 * MIB)
    killed_over(job, extents, monkeypatch)
    report = job.sync(only=extents)
    assert report.target_bytes_read == 2 * BLOCK
    assert not report.compared_all
    assert "believed outside the extents" in report.notes[0]
    header = digest_file.FileHeader.unpack(job.digests.read_bytes()[:4096])
    assert header.state is BlockState.DONE
    assert job.sync().target_bytes_read == 0


def test_what_other_extents_leave_of_a_killed_pass_is_compared_by_a_whole_one(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_over(job, change_source(job, MIB), monkeypatch)
    job.sync(only=change_source(job, 2 * MIB))
    header = digest_file.FileHeader.unpack(job.digests.read_bytes()[:4096])
    assert header.state is BlockState.PARTIAL
    report = job.sync()
    # A segment is read for one block of it that is not known.
    assert report.notes == ()
    assert BLOCK <= report.target_bytes_read <= passes.SEGMENT


def test_a_killed_pass_over_everything_is_compared_as_a_whole(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_source(job, MIB)
    killed_over(job, None, monkeypatch)  # type: ignore[arg-type]
    report = job.sync()
    assert report.compared_all
    assert report.target_bytes_read == 4 * MIB + 700


@pytest.mark.parametrize("at", [8, 90, 4095, 4096 + 3, 4096 + 20])
def test_one_wrong_byte_of_a_file_within_means_a_full_compare(
    job: Job, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    extents = change_source(job, MIB)
    killed_over(job, extents, monkeypatch)
    data = bytearray(job.digests.read_bytes())
    data[at] ^= 1
    job.digests.write_bytes(data)
    assert job.sync(only=extents).compared_all


def test_a_file_of_an_earlier_version_is_not_believed(job: Job) -> None:
    data = bytearray(job.digests.read_bytes())
    data[8] = 2
    data[4080:4096] = digest_file.xxh3_128(bytes(data[:4080]))
    job.digests.write_bytes(data)
    report = job.sync()
    assert "has version 2" in report.notes[0]
    assert report.compared_all
