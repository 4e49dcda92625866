"""What may have changed on a logical volume since a snapshot of it was made."""

from collections.abc import Sequence

from blocksync.changes import cow_store, snapshots, thin_delta
from blocksync.changes.candidates import Changes, ListLostError
from blocksync.changes.lvm import Volume, dm_name, find
from blocksync.changes.runner import Run
from blocksync.errors import Failed
from blocksync.extents import Extents

# One command reads many pieces: each round trip to a far host costs more than they do. In their order, and
# with O_DIRECT: the kernel writes the store underneath the page cache.
_READ = """
device=$1 length=$2; shift 2
for number; do
    dd if="$device" bs="$length" skip="$number" count=1 iflag=direct 2>/dev/null || exit
done
"""


def since(run: Run, snapshot: Volume, newer: Volume | None = None) -> Changes:
    """What may have changed on a snapshot's origin since the snapshot was made, at least up to the moment of
    `newer`, a later snapshot of the same origin, or up to now.

    Where the list is lost (snapshot gone, full or invalid, host rebooted since, volume resized, a store that
    makes no sense) everything may have changed, and `why` says so. Raises Failed when the host does not
    answer, or has no such volume any more.
    """
    origin = find(run, snapshot.group, snapshot.origin)
    if origin is None:
        raise Failed(f"{snapshot.group}/{snapshot.origin}", "is gone", "look for it with `lvs`")
    try:
        _check(run, snapshot, origin)
        listed = _thin(run, snapshot, newer or origin) if snapshot.is_thin else _cow(run, snapshot, origin)
    except ListLostError as lost:
        return Changes.whole(origin.size, f"no list since {snapshot.name}: {lost}")
    return Changes.listed(listed, origin.size, f"what {snapshot.name} lists")


def _check(run: Run, snapshot: Volume, origin: Volume) -> None:
    there = find(run, snapshot.group, snapshot.name)
    if there is None or there.uuid != snapshot.uuid:
        raise ListLostError("the snapshot is gone")
    status, output = run(["blockdev", "--getsize64", snapshot.path, origin.path])
    sizes = output.split()
    if status or len(sizes) != 2:
        raise ListLostError("it is not active")
    if sizes[0] != sizes[1]:
        raise ListLostError("the volume was resized since")
    made_in = snapshots.boot_of(snapshot)
    if made_in is not None and made_in != snapshots.boot_id(run):
        raise ListLostError("the host was started anew since")


def _cow(run: Run, snapshot: Volume, origin: Volume) -> Extents:
    _check_fill(run, snapshot)
    store = f"/dev/mapper/{snapshot.dm_name}-cow"
    status, output = run(["blockdev", "--getsize64", store])
    if status or not output.strip().isdigit():
        raise ListLostError("its store is not there")

    def read(offsets: Sequence[int], length: int) -> list[bytes]:
        numbers = [str(offset // length) for offset in offsets]
        status, output = run(["sh", "-c", _READ, "sh", store, str(length), *numbers])
        if status:
            raise ListLostError("its store cannot be read")
        return [output[at : at + length] for at in range(0, len(output), length)]

    listed = cow_store.changed(read, int(output), origin.size)
    # What overflows while its list is read may have stopped listing.
    _check_fill(run, snapshot)
    return listed


def _check_fill(run: Run, snapshot: Volume) -> None:
    lost = snapshots.fill(run, snapshot).lost
    if lost is not None:
        raise ListLostError(lost)


def _thin(run: Run, older: Volume, newer: Volume) -> Extents:
    ids = _thin_id(run, older), _thin_id(run, newer)
    pool = dm_name(older.group, older.pool)
    return thin_delta.between(run, f"{pool}-tpool", f"/dev/mapper/{pool}_tmeta", ids, newer.size)


def _thin_id(run: Run, volume: Volume) -> int:
    """A thin device's number in its pool, from its table: `0 SECTORS thin POOL ID`."""
    status, output = run(["dmsetup", "table", volume.dm_name])
    fields = output.split()
    if status or len(fields) < 5 or fields[2] != b"thin" or not fields[4].isdigit():
        raise ListLostError(f"{volume.full_name} is no active thin volume")
    return int(fields[4])
