"""What the tests do in dom0: compare devices past the page cache, and look into a snapshot's file systems."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from lab_places import GROUP, GUEST
from witness import LOG, RECORDS, Account, account
from xen_host import XenLab

from blocksync.changes.lvm import LogicalVolume

UNIT = 4096
GUEST_VOLUMES = {f"{GUEST}-{part}" for part in ("swap", "root", "srv")}
"""All that the group holds while no snapshot stands."""

# Prints the extents, in bytes and by units of 4 KiB, in which two devices differ.
_COMPARE = """
import json, mmap, os, sys
unit, piece = 4096, 1 << 20
left, right = (os.open(path, os.O_RDONLY | os.O_DIRECT) for path in sys.argv[1:])
size = os.lseek(left, 0, os.SEEK_END)
assert size == os.lseek(right, 0, os.SEEK_END)
a, b = mmap.mmap(-1, piece), mmap.mmap(-1, piece)
found = []
for start in range(0, size, piece):
    count = os.preadv(left, [a], start)
    assert count == os.preadv(right, [b], start) == min(piece, size - start)
    if a[:count] != b[:count]:
        for at in range(0, count, unit):
            if a[at : at + unit] != b[at : at + unit]:
                found.append((start + at, unit))
json.dump(found, sys.stdout)
"""


def differing(lab: XenLab, left: str, right: str) -> list[tuple[int, int]]:
    """Where two devices of dom0 differ, byte by byte: offset and length."""
    done = lab.ssh(["python3", "-c", _COMPARE, left, right])
    return [(offset, length) for offset, length in json.loads(done.stdout)]


def place(lab: XenLab, volume: LogicalVolume) -> tuple[int, int]:
    """Where a volume in one piece lies on the volume group's disk: offset and length in bytes."""
    tables = [lab.ssh(["dmsetup", "table", volume.dm_name + layer], check=False) for layer in ("-real", "")]
    [start, length, kind, _, offset] = next(each.stdout.split() for each in tables if not each.returncode)
    assert (start, kind) == (b"0", b"linear")
    return int(offset) * 512, int(length) * 512


def differing_at(one: Path, other: Path, offset: int, length: int) -> list[tuple[int, int]]:
    """Where two images differ within a range: units of 4 KiB, offsets counted from the range's start."""
    left, right = (np.memmap(path, np.uint64, "r", offset, length // 8) for path in (one, other))
    units = np.flatnonzero((left != right).reshape(-1, UNIT // 8).any(axis=1))
    return [(int(unit) * UNIT, UNIT) for unit in units]


def witness_account(lab: XenLab, root: str, srv: str, expected: dict[int, str], folder: Path) -> Account:
    """The witness's account of the moment that a pair of dom0's devices hold. They are not written: their
    journals are replayed into overlays in memory.
    """
    archive = lab.ssh(["sh", "-ec", _TAKE_OUT, "sh", root, srv, str(LOG), str(RECORDS)]).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return account(folder / "root", folder / "srv", expected)


_TAKE_OUT = """
root=$1 srv=$2 log=$3 records=$4 at=/run/taken
end() {
    umount "$at/root" "$at/srv" || :
    for name in root srv; do
        dmsetup remove --retry "taken-$name" || :
        losetup -d "$(cat "$at/$name.loop")" || :
    done
    umount "$at"; rmdir "$at"
} >&2 2>&1
mkdir "$at"
mount -t tmpfs none "$at"
trap end EXIT
for name in root srv; do
    eval device=\\$$name
    truncate -s 64M "$at/$name.store"
    losetup -f --show "$at/$name.store" >"$at/$name.loop"
    sectors=$(blockdev --getsz "$device")
    dmsetup create "taken-$name" --table "0 $sectors snapshot $device $(cat "$at/$name.loop") N 8"
    mkdir "$at/$name"
    mount "/dev/mapper/taken-$name" "$at/$name"
done
tar -C "$at" -c "root/$log" "srv/$records"
"""


def volume_names(lab: XenLab) -> set[str]:
    """All logical volumes in dom0's group, hidden ones too."""
    return set(lab.shell(f"lvs -a --noheadings -o lv_name {GROUP}").split())


def guest_is_paused(lab: XenLab) -> bool:
    """Whether Xen holds the guest back."""
    state = lab.shell(f"xl list {GUEST}").splitlines()[1].split()[4]
    return "p" in state
