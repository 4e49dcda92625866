"""A kill in the last pass, or among the fix-ups, costs what changed and not the disk."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace
from played_migration import MIB, Migration, quiet
from played_xen import CHUNK, Killed
from test_cutover_journal import KILLED_AMONG_THE_FIX_UPS, killed
from test_passes_and_cutover import on_target

from blocksync.digests import digest_file, trust
from blocksync.digests.digest_file import HEADER_SIZE, FileHeader
from blocksync.digests.trust import Settlement
from orchestrate.copying import passes
from orchestrate.job.folder import Job, Phase
from orchestrate.plan.file import load

# The fix-ups are written half when the command dies.
KILLED_HALFWAY = """
import os, signal
from blocksync.devices import target as targets
from orchestrate import cli
real = targets.write_pieces
def half(path, pieces, source):
    real(path, pieces[: len(pieces) // 2], source)
    os.kill(os.getpid(), signal.SIGKILL)
targets.write_pieces = half
cli.main()
"""


@pytest.fixture
def proven(tmp_path: Path) -> Migration:
    """A moment is proven, and the guest writes on."""
    migration = Migration(tmp_path)
    migration.sync()
    passes.prove_moment(migration.job, migration.source, quiet)
    for name in migration.names:
        migration.host.write(name, 5 * CHUNK, b"new" * 1000)
        migration.host.write(name, 9 * CHUNK, b"new" * 1000)
    return migration


def listed(migration: Migration) -> int:
    """Bytes that may have changed since the moment."""
    return sum(len(each.changed) for each in migration.host.snapshots.values()) * CHUNK


def unknown(guest) -> int:
    """Bytes of the target that the next pass has to read, by digest files that it believes."""
    job, count = Job(guest.folder / "job", load(guest.plan)), 0
    for volume in job.plan.copied:
        place = volume.partition.offset
        assert trust.still_true(job.digests(volume), job.plan.target, offset=place, size=volume.size)
        binding = FileHeader.unpack(job.digests(volume).read_bytes()[:HEADER_SIZE]).binding
        table, size = bytes(digest_file.load(job.digests(volume), binding).table), binding.hash.size
        blocks = (table[at : at + size] for at in range(0, binding.table_size, size))
        count += binding.block_size * sum(not any(block) for block in blocks)
    return count


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_last_pass_that_is_killed_costs_what_changed(proven, monkeypatch, nth):
    """Killed once the n-th copy has written, before anything of it was settled."""
    settle, count = Settlement.settle, iter(range(1, 100))

    def dies(self: Settlement) -> None:
        if next(count) == nth:
            raise Killed
        settle(self)

    with monkeypatch.context() as patch:
        patch.setattr(Settlement, "settle", dies)
        with pytest.raises(Killed):
            proven.last_pass()
    report = proven.last_pass()
    proven.assert_equals_the_volumes()
    assert report.total("bytes_total") <= listed(proven) < MIB
    assert report.total("target_bytes_read") <= listed(proven)
    # What was proven is so still: only what the pass looked at is read back.
    proofs = passes.prove_last(proven.job, proven.source, report, quiet)
    assert not any(proof.startswith("BLAKE3") or "all " in proof for proof in proofs.values())


@pytest.mark.parametrize("times", [1, 3])
def test_a_pass_that_is_killed_again_and_again_loses_nothing(proven, monkeypatch, times):
    def dies(_: Settlement) -> None:
        raise Killed

    for at in range(times):
        proven.host.write("srv", (11 + at) * CHUNK, b"more" * 1000)
        with monkeypatch.context() as patch:
            patch.setattr(Settlement, "settle", dies)
            with suppress(Killed):
                proven.last_pass()
    report = proven.last_pass()
    proven.assert_equals_the_volumes()
    assert report.total("bytes_total") <= listed(proven) < MIB


def test_what_fix_ups_wrote_is_copied_again_and_nothing_else(proven):
    proven.last_pass()
    job = proven.job
    extents = {"root": ((3 * CHUNK, 100), (7 * CHUNK + 5, CHUNK)), "srv": ()}
    job.remember(replace(job.state(), phase=Phase.FINISHING, repaired=extents))
    for volume in job.plan.copied:
        place = volume.partition.offset
        spans = list(extents[volume.device])
        trust.give_up(job.digests(volume), job.plan.target, spans, offset=place, size=volume.size)
    with job.plan.target.open("r+b") as target:
        for offset, length in extents["root"]:
            target.seek(job.plan.root.partition.offset + offset)
            target.write(b"x" * length)
    report = proven.last_pass()
    proven.assert_equals_the_volumes()
    assert report.total("bytes_total") <= listed(proven) + 4 * 16384 + CHUNK
    assert job.state().repaired is None
    assert job.state().phase is Phase.PASSES


def test_a_pass_after_fix_ups_that_were_begun_undoes_them(proven):
    """The guest went back to Xen and serves: the next pass is from a moment."""
    job = proven.job
    volume = job.plan.copied[0]
    job.remember(replace(job.state(), phase=Phase.FINISHING, repaired={"root": ((0, 4096),)}))
    trust.give_up(
        job.digests(volume), job.plan.target, [(0, 4096)], offset=volume.partition.offset, size=volume.size
    )
    with job.plan.target.open("r+b") as target:
        target.seek(volume.partition.offset)
        target.write(b"x" * 4096)
    proven.sync()
    proven.assert_equals_its_moment()


def test_a_stranger_s_writes_after_a_kill_are_found_where_they_are_many(proven, monkeypatch):
    def dies(_: Settlement) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Settlement, "settle", dies)
        with pytest.raises(Killed):
            proven.last_pass()
    volume = proven.job.plan.copied[0]
    with proven.job.plan.target.open("r+b") as target:
        target.seek(volume.partition.offset)
        target.write(bytes(MIB))
    report = proven.last_pass()
    proven.assert_equals_the_volumes()
    assert report.total("bytes_total") == 2 * MIB


def test_fix_ups_that_were_half_written_cost_what_they_wrote(planned_guest, xl):
    killed(planned_guest, "--override=fix-ups", script=KILLED_HALFWAY)
    state = json.loads((planned_guest.folder / "job" / "state.json").read_text())
    assert state["phase"] == "finishing"
    wrote = sum(length for extents in state["repaired"].values() for _, length in extents)
    edges = 2 * 16384 * len(state["repaired"]["xvda2"])
    assert 0 < unknown(planned_guest) <= wrote + edges
    planned_guest.result("cutover")
    assert on_target(planned_guest, "xvda3") == planned_guest.volumes["xvda3"].read_bytes()
    assert not xl.running


def test_a_kill_among_the_fix_ups_costs_nothing(planned_guest, xl):
    killed(planned_guest, "--override=fix-ups", script=KILLED_AMONG_THE_FIX_UPS)
    assert json.loads((planned_guest.folder / "job" / "state.json").read_text())["phase"] == "passes"
    assert on_target(planned_guest, "xvda2") == planned_guest.volumes["xvda2"].read_bytes()
    assert unknown(planned_guest) == 0
    planned_guest.result("cutover")
    assert not list((planned_guest.folder / "job").glob("overlay-*"))
