"""What may have changed on a volume of this host."""

from pathlib import Path

from blocksync.changes import lvm
from blocksync.changes.candidates import Changes
from blocksync.changes.since import since
from blocksync.devices.device import measure
from blocksync.errors import Usage
from blocksync.extents import Extents
from blocksync.hosts.runner import run_here


def changed(volume: Path, *, snapshot: str | None = None, only: Path | None = None) -> Changes:
    """The candidates of a device or image file: since one of its LVM snapshots, or those of an extents file;
    all of it when neither is named. Raises Usage for what does not fit together, Failed when LVM fails.
    """
    if snapshot is None:
        size = measure(volume).size
        if only is None:
            return Changes.whole(size, "nothing is known of what changed")
        return Changes.listed(Extents.read(only), size, f"what {only} lists")
    if only is not None:
        raise Usage("--since and --only", "exclude each other", "name a snapshot or an extents file")
    origin, made = lvm.volume(run_here, str(volume)), lvm.volume(run_here, snapshot)
    if (made.group, made.origin) != (origin.group, origin.name):
        raise Usage(snapshot, f"is no snapshot of {volume}", "look for its snapshots with `lvs -o +origin`")
    return since(run_here, made)
