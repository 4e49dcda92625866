"""What may have changed on a logical volume since a snapshot of it was made."""

from collections.abc import Sequence
from dataclasses import dataclass

from blocksync.changes import cow_store, snapshots, thin_delta
from blocksync.changes.candidates import Changes, ListLostError
from blocksync.changes.lvm import LogicalVolume, dm_name, find
from blocksync.errors import Failed
from blocksync.extents import Extents
from blocksync.hosts.runner import Run
from blocksync.sizes import counted

# A cutover waits for this: one command tells all, and asks device-mapper, which answers sooner than lvs does.
# What sysfs tells needs no program, each of which takes a slow host a quarter of a second to start.
_LOOK = """
tell() {
    if [ -n "$3" ] && read -r uuid <"$3/dm/uuid" && read -r sectors <"$3/size"; then
        size=$((sectors * 512))
    else
        uuid=$(dmsetup info -c --noheadings -o uuid "$2"); size=$(blockdev --getsize64 "/dev/mapper/$2")
    fi
    [ "$1" = size ] && echo "$size" || echo "$uuid $size"
} 2>/dev/null
origin= snapshot= store=
for each in /sys/block/dm-*; do
    read -r name <"$each/dm/name" || continue
    case $name in
    "$1") origin=$each ;;
    "$2") snapshot=$each ;;
    "$2-cow") store=$each ;;
    esac
done 2>/dev/null
read -r boot </proc/sys/kernel/random/boot_id
tell both "$1" "$origin"
tell both "$2" "$snapshot"
echo "$boot"
tell size "$2-cow" "$store"
dd if="/dev/mapper/$2-cow" bs="$3" count=1 iflag=direct 2>/dev/null
echo
dmsetup status "$2" 2>/dev/null
exit 0
"""
_LINES = 4
# Header and first area of our own snapshots: a list of up to 256 MiB, with no second command.
_BEGINNING = 2 * snapshots.CHUNK_SIZE

# One command reads many pieces: each round trip to a far host costs more than they do. In their order, and
# with O_DIRECT: the kernel writes the store underneath the page cache. What overflows while its list is read
# may have stopped listing, so its state comes after them.
_READ = """
snapshot=$1 length=$2; shift 2
for number; do
    dd if="/dev/mapper/$snapshot-cow" bs="$length" skip="$number" count=1 iflag=direct 2>/dev/null || exit
done
dmsetup status "$snapshot"
"""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A snapshot and its origin on their host: device-mapper's uuid and size in bytes of both (nothing where
    one is not active), the host's boot, its store's size and beginning, and the snapshot's state after that
    was read.
    """

    origin: list[str]
    snapshot: list[str]
    boot: str
    store_size: str
    beginning: bytes
    state: str


def since(run: Run, snapshot: LogicalVolume, newer: LogicalVolume | None = None) -> Changes:
    """What may have changed on a snapshot's origin since the snapshot was made, at least up to the moment of
    `newer`, a later snapshot of the same origin, or up to now.

    Where the list is lost (snapshot gone, full or invalid, host rebooted since, volume resized, a store that
    makes no sense) everything may have changed, and `why` says so. Raises Failed when the host does not
    answer, or has no such volume any more, or has it inactive.
    """
    look = _look(run, snapshot)
    size = _origin_size(run, snapshot, look)
    try:
        _check(snapshot, look, size)
        listed = _thin(run, snapshot, newer, size) if snapshot.is_thin else _cow(run, snapshot, look, size)
    except ListLostError as lost:
        return Changes.whole(size, f"no list since {snapshot.name}: {lost}")
    return Changes.listed(listed, size, f"what {snapshot.name} lists")


def _look(run: Run, snapshot: LogicalVolume) -> _Snapshot:
    origin = dm_name(snapshot.group, snapshot.origin)
    names = [origin, snapshot.dm_name, str(_BEGINNING)]
    status, output = run(["sh", "-c", _LOOK, "sh", *names])
    lines = output.split(b"\n", _LINES)
    if status or len(lines) != _LINES + 1:
        raise Failed(
            f"{snapshot.group}/{snapshot.origin}", "cannot be looked at", "are dmsetup, blockdev there?"
        )
    words = [line.decode(errors="replace") for line in lines[:_LINES]]
    rest = lines[_LINES]
    length = _BEGINNING if len(rest) > _BEGINNING else 0
    state = rest[length:].decode(errors="replace").strip()
    return _Snapshot(words[0].split(), words[1].split(), words[2].strip(), words[3], rest[:length], state)


def _origin_size(run: Run, snapshot: LogicalVolume, look: _Snapshot) -> int:
    size = counted(look.origin[1]) if len(look.origin) == 2 else None
    if size is not None:
        return size
    name = f"{snapshot.group}/{snapshot.origin}"
    if find(run, snapshot.group, snapshot.origin) is None:
        raise Failed(name, "is gone", "look for it with `lvs`")
    raise Failed(name, "is not active", f"lvchange -ay {name}")


def _check(snapshot: LogicalVolume, look: _Snapshot, size: int) -> None:
    if len(look.snapshot) != 2:
        raise ListLostError("the snapshot is gone, or not active")
    # Device-mapper knows a volume as LVM-, its group's uuid and its own, without their hyphens.
    if not look.snapshot[0].endswith(snapshot.uuid.replace("-", "")):
        raise ListLostError("the snapshot is gone")
    if look.snapshot[1] != str(size):
        raise ListLostError("the volume was resized since")
    made_in = snapshots.boot_of(snapshot)
    if made_in is not None and made_in != look.boot:
        raise ListLostError("the host was started anew since")


def _cow(run: Run, snapshot: LogicalVolume, look: _Snapshot, size: int) -> Extents:
    _check_fill(look.state)
    store_size = counted(look.store_size)
    if store_size is None:
        raise ListLostError("its store is not there")

    def read(offsets: Sequence[int], length: int) -> list[bytes]:
        if max(offsets) + length <= len(look.beginning):
            return [look.beginning[offset : offset + length] for offset in offsets]
        return _pieces(run, snapshot, offsets, length)

    return cow_store.changed(read, store_size, size)


def _pieces(run: Run, snapshot: LogicalVolume, offsets: Sequence[int], length: int) -> list[bytes]:
    numbers = [str(offset // length) for offset in offsets]
    status, output = run(["sh", "-c", _READ, "sh", snapshot.dm_name, str(length), *numbers])
    end = len(offsets) * length
    if status or len(output) < end:
        raise ListLostError("its store cannot be read")
    _check_fill(output[end:].decode(errors="replace"))
    return [output[at : at + length] for at in range(0, end, length)]


def _check_fill(state: str) -> None:
    lost = snapshots.parse_fill(state).lost
    if lost is not None:
        raise ListLostError(lost)


def _thin(run: Run, older: LogicalVolume, newer: LogicalVolume | None, size: int) -> Extents:
    until = dm_name(older.group, older.origin) if newer is None else newer.dm_name
    ids = _thin_id(run, older.dm_name), _thin_id(run, until)
    pool = dm_name(older.group, older.pool)
    return thin_delta.between(run, f"{pool}-tpool", f"/dev/mapper/{pool}_tmeta", ids, size)


def _thin_id(run: Run, name: str) -> int:
    """A thin device's number in its pool, from its table: `0 SECTORS thin POOL ID`."""
    status, output = run(["dmsetup", "table", name])
    fields = output.decode(errors="replace").split()
    number = counted(fields[4]) if len(fields) > 4 and fields[2] == "thin" else None
    if status or number is None:
        raise ListLostError(f"{name} is no active thin volume")
    return number
