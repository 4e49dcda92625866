"""What may have changed, on a real Xen host: never too little, and nothing left behind."""

import os
import signal
import time
from contextlib import contextmanager

import pytest
from in_dom0 import (
    GUEST_VOLUMES,
    differing,
    differing_at,
    guest_is_paused,
    place,
    volume_names,
    witness_account,
)
from lab_places import GROUP, GUEST
from witness import acknowledged

from blocksync.changes import lvm, snapshots
from blocksync.changes.since import since
from blocksync.changes.snapshots import CHUNK_SIZE, Hold
from blocksync.errors import Failed, Refused, Usage

pytestmark = pytest.mark.timeout(1200)

PAUSE = Hold(("xl", "pause", GUEST), ("xl", "unpause", GUEST))
MIB = 2**20


@pytest.fixture(autouse=True)
def nothing_is_left_behind(lab):
    """Each test begins and ends with the guest's volumes alone, and the guest not held."""
    assert volume_names(lab) == GUEST_VOLUMES
    yield
    assert volume_names(lab) == GUEST_VOLUMES
    assert not guest_is_paused(lab)


@contextmanager
def paused(lab):
    lab.shell(f"xl pause {GUEST}")
    try:
        yield
    finally:
        lab.shell(f"xl unpause {GUEST}")


@pytest.fixture
def root_and_srv(lab):
    return [lvm.volume(lab.run, f"{GROUP}/{GUEST}-{part}") for part in ("root", "srv")]


@pytest.fixture
def scratch(lab):
    """A volume of its own, of 256 MiB."""
    lab.shell(f"lvcreate -q -y -W y -L 256m -n scratch {GROUP}")
    yield lvm.volume(lab.run, f"{GROUP}/scratch")
    lab.shell(f"lvremove -q -f {GROUP}/scratch")


def write(lab, path, offset_mib, mib):
    where = f"of={path} bs=1M seek={offset_mib} count={mib}"
    lab.shell(f"dd if=/dev/urandom {where} oflag=direct conv=notrunc status=none")


def covered(extents, ranges):
    """Whether each range lies inside the extents, which are sorted and disjoint."""
    return all(
        any(start <= offset and offset + length <= start + size for start, size in extents)
        for offset, length in ranges
    )


def test_three_passes_of_a_running_guest_list_every_chunk_that_changed(lab, root_and_srv):
    places = [place(lab, each) for each in root_and_srv]
    older, before = moment(lab, root_and_srv, 1)
    try:
        for number in (2, 3, 4):
            time.sleep(6)
            lab.shell("dd if=/dev/urandom of=/var/tmp/more bs=64k count=40 conv=fsync", host=GUEST)
            newer, after = moment(lab, root_and_srv, number)
            for old, new, where in zip(older, newer, places, strict=True):
                found = since(lab.run, old, new)
                changed = differing_at(before, after, *where)
                assert changed, f"nothing was written to {old.origin}: this shows nothing"
                assert not found.everything, found.why
                assert covered(found.extents.pairs(), changed)
                assert found.extents.total < found.size / 4
            snapshots.remove(lab.run, older)
            before.unlink()
            older, before = newer, after
    finally:
        snapshots.remove(lab.run, snapshots.ours(lab.run, "web1"))


def moment(lab, volumes, number):
    """Snapshots of a moment, and the disk underneath as it was then."""
    with paused(lab):
        return snapshots.make(lab.run, volumes, job="web1", number=number), lab.keep_disk(str(number))


def test_snapshots_made_together_hold_every_record_that_was_acknowledged_before(lab, root_and_srv, tmp_path):
    expected = acknowledged(lab.guest_console())
    assert expected
    pair = snapshots.make(lab.run, root_and_srv, job="web1", number=1, hold=PAUSE)
    try:
        found = witness_account(lab, pair[0].path, pair[1].path, expected, tmp_path)
    finally:
        snapshots.remove(lab.run, pair)
    assert found.wrong == ()
    assert found.last >= max(expected)


def test_a_list_of_several_areas_names_what_was_written_and_no_more(lab, scratch):
    [snapshot] = snapshots.make(lab.run, [scratch], job="areas", number=1, share=1.0)
    try:
        write(lab, scratch.path, 200, 3)
        write(lab, scratch.path, 0, 150)
        lab.shell(f"dd if=/dev/urandom of={scratch.path} bs=4k seek=50003 count=1 oflag=direct conv=notrunc")
        found = since(lab.run, snapshot)
        one = 50003 * 4096 // CHUNK_SIZE * CHUNK_SIZE
        assert found.extents.pairs() == [(0, 150 * MIB), (one, CHUNK_SIZE), (200 * MIB, 3 * MIB)]
        assert not found.everything
    finally:
        snapshots.remove(lab.run, [snapshot])


def test_a_snapshot_that_overflowed_means_that_everything_may_have_changed(lab, scratch):
    [snapshot] = snapshots.make(lab.run, [scratch], job="overflow", number=1)
    assert snapshots.fill(lab.run, snapshot).lost is None
    write(lab, scratch.path, 0, 100)
    assert snapshots.fill(lab.run, snapshot).lost
    found = since(lab.run, snapshot)
    assert found.everything
    assert found.extents.pairs() == [(0, scratch.size)]
    assert "no list since xen2kvm-overflow-scratch-1" in found.why
    snapshots.remove(lab.run, [snapshot])
    assert since(lab.run, snapshot).everything


def test_a_boot_since_means_that_everything_may_have_changed(lab, scratch):
    [made] = snapshots.make(lab.run, [scratch], job="boot", number=1)
    boot = f"xen2kvm-boot-{snapshots.boot_of(made)}"
    other = "xen2kvm-boot-00000000-0000-4000-8000-000000000000"
    lab.shell(f"lvchange -q --deltag {boot} --addtag {other} {made.full_name}")
    [found] = snapshots.ours(lab.run, "boot")
    changes = since(lab.run, found)
    snapshots.remove(lab.run, [found])
    assert changes.everything
    assert "started anew" in changes.why


def test_a_killed_run_leaves_snapshots_that_the_next_one_finds_and_removes(lab, root_and_srv):
    child = os.fork()
    if not child:
        try:
            snapshots.make(lab.run, root_and_srv, job="killed", number=4, hold=PAUSE)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    left = snapshots.ours(lab.run, "killed")
    assert {each.name for each in left} == {f"xen2kvm-killed-{GUEST}-{part}-4" for part in ("root", "srv")}
    assert [snapshots.pass_of(each) for each in left] == [4, 4]
    assert snapshots.ours(lab.run, "another") == []
    with pytest.raises(Usage, match="left by an earlier run"):
        snapshots.make(lab.run, root_and_srv, job="killed", number=4)
    snapshots.remove(lab.run, left)
    assert snapshots.ours(lab.run) == []


def test_when_one_of_several_cannot_be_made_none_is_left_and_the_guest_goes_on(lab, root_and_srv):
    name = f"{GROUP}/xen2kvm-web1-{GUEST}-srv-9"
    lab.shell(f"lvcreate -q -y -L 4m -n {name.split('/')[1]} {GROUP}")
    try:
        with pytest.raises(Failed, match="lvcreate"):
            snapshots.make(lab.run, root_and_srv, job="web1", number=9, hold=PAUSE)
        assert not guest_is_paused(lab)
        assert volume_names(lab) == GUEST_VOLUMES | {name.split("/")[1]}
        with pytest.raises(Usage, match="no snapshot of ours"):
            snapshots.remove(lab.run, [lvm.volume(lab.run, name)])
    finally:
        lab.shell(f"lvremove -q -f {name}")


def test_a_release_that_fails_is_said_aloud_and_leaves_no_snapshot(lab, scratch):
    with pytest.raises(Failed, match="may still be held"):
        snapshots.make(lab.run, [scratch], job="held", number=1, hold=Hold(("true",), ("false",)))


def test_a_group_without_room_is_refused_before_the_guest_is_held(lab, root_and_srv):
    lab.shell(f"lvcreate -q -y -W n -Z n -l 100%FREE -n filler {GROUP}")
    try:
        with pytest.raises(Refused, match="bytes free") as refusal:
            snapshots.make(lab.run, root_and_srv, job="web1", number=1, hold=Hold(("false",), ("false",)))
        assert refusal.value.guard == "space"
    finally:
        lab.shell(f"lvremove -q -f {GROUP}/filler")


@pytest.fixture
def thin(lab):
    """A thin volume of 256 MiB in a pool of its own."""
    lab.shell(
        f"lvcreate -q -y -L 512m -c 64k -T {GROUP}/pool; lvcreate -q -y -V 256m -T {GROUP}/pool -n thin"
    )
    yield lvm.volume(lab.run, f"{GROUP}/thin")
    lab.shell(f"lvremove -q -f {GROUP}/pool; lvremove -q -f {GROUP}/lvol0_pmspare 2>/dev/null || :")


def held_metadata(lab):
    """The pool's held metadata root, `-` when there is none (thin-provisioning.rst)."""
    return lab.shell(f"dmsetup status {GROUP}-pool-tpool").split()[6]


def test_thin_snapshots_tell_what_changed_and_their_pool_is_let_go(lab, thin):
    write(lab, thin.path, 0, 20)
    [older] = snapshots.make(lab.run, [thin], job="thin", number=1)
    try:
        write(lab, thin.path, 5, 2)
        write(lab, thin.path, 100, 1)
        lab.shell(f"blkdiscard -o {MIB} -l {MIB} {thin.path}")
        [newer] = snapshots.make(lab.run, [thin], job="thin", number=2)
        write(lab, thin.path, 200, 1)
        between = since(lab.run, older, newer)
        assert between.extents.pairs() == [(MIB, MIB), (5 * MIB, 2 * MIB), (100 * MIB, MIB)]
        assert covered(between.extents.pairs(), differing(lab, older.path, newer.path))
        assert since(lab.run, older).extents.pairs()[-1] == (200 * MIB, MIB)
        assert held_metadata(lab) == "-"
        held_by_a_killed_run(lab)
        assert since(lab.run, older, newer) == between
        assert held_metadata(lab) == "-"
        held_by_somebody_else(lab, older)
    finally:
        snapshots.remove(lab.run, snapshots.ours(lab.run, "thin"))


def held_by_a_killed_run(lab):
    """Leave what a shell leaves that is killed while it reads the pool's metadata."""
    pool = f"{GROUP}-pool-tpool"
    lab.shell(f"dmsetup message {pool} 0 reserve_metadata_snap; echo 1 >/run/xen2kvm-{pool}.held")
    assert held_metadata(lab) != "-"


def held_by_somebody_else(lab, snapshot):
    """Another program's hold is not ours to release."""
    pool = f"{GROUP}-pool-tpool"
    lab.shell(f"dmsetup message {pool} 0 reserve_metadata_snap")
    assert since(lab.run, snapshot).everything
    assert held_metadata(lab) != "-"
    lab.shell(f"dmsetup message {pool} 0 release_metadata_snap")
