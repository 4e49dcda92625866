"""Whether a guest's Xen volumes are half written: a mark in the job folder while changes are sent back."""

import os
from pathlib import Path

from blocksync import own_files
from blocksync.devices.device import sync_folder
from blocksync.errors import Refused
from orchestrate.job.folder import Job

_NAME = "giving-back"


def mark(job: Job) -> None:
    """Note durably, before the first write, that the volumes are about to be torn."""
    volumes = "".join(f"{volume.path}\n" for volume in job.plan.copied)
    own_files.replace(job.folder / _NAME, volumes.encode(errors="surrogateescape"), "a mark")


def clear(job: Job) -> None:
    """Note durably that the volumes are whole: each was proven equal to its partition."""
    (job.folder / _NAME).unlink()
    sync_folder(job.folder)


def is_torn(folder: Path) -> bool:
    """Whether in a job's folder a giving back began, and was not proven complete."""
    return os.path.lexists(folder / _NAME)


def refuse_torn(job: Job) -> None:
    """Raises Refused while the volumes are torn: nothing may start the guest on Xen, or copy from them."""
    if is_torn(job.folder):
        raise Refused(
            f"the Xen volumes of {job.plan.guest.name}",
            "are half written: sending the changes back was interrupted",
            "go on with `xen2kvm rollback --send-back`; the guest's disk on KVM is whole",
            guard="torn",
        )
