"""What this host must have for a cutover: rights, programs, room, places. All of it is looked at before the
guest is stopped, and all that is missing is told at once.
"""

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from blocksync.errors import Failed, Refused
from blocksync.hosts import programs
from orchestrate.guest.boot import grub_image
from orchestrate.handover.announce import announcements
from orchestrate.job.folder import Job
from orchestrate.kvm.libvirt import DEFAULT_URI, Libvirt
from orchestrate.plan.model import Action, Plan

ROOM = "room"

_NEEDED = ("blkid", "grub-mkimage", "umount", "qemu-img", "qemu-storage-daemon", "setpriv")
# An overlay of fix-ups takes some ten MiB, GRUB's modules most of it.
_FEWEST_BYTES = 64 * 2**20
_QEMU_CONF = Path("/etc/libvirt/qemu.conf")
_QEMU_USERS = ("libvirt-qemu", "qemu")


def require_root() -> None:
    """Raises `Refused` (guard `root`) for anybody else."""
    if os.geteuid() != 0:
        raise Refused(
            "xen2kvm cutover",
            "needs root: the guest is repaired on loop devices that are mounted here",
            "run the same command as root; the guest was not stopped",
            guard="root",
        )


def require_programs(plan: Plan, *, starting: bool) -> None:
    """Raises `Failed` naming every program that a later step would not find, with the package that has it."""
    missing = [
        f"{name} ({whose})" for name, whose in _programs(plan, starting) if programs.look_up(name) is None
    ]
    if missing:
        raise Failed(
            "this host",
            f"lacks programs that the cutover needs: {', '.join(missing)}",
            "install them (apt-get install, the package is in brackets), or correct PATH",
        )
    grub_image.modules()


def _programs(plan: Plan, starting: bool) -> Iterator[tuple[str, str]]:
    """Each, and whose it is: a package's, or one of the plan's checks'."""
    needed = [*_NEEDED]
    if any(volume.action is Action.RECREATE for volume in plan.volume):
        needed.append("mkswap")
    if starting:
        needed.append("virsh")
        if any(announcements(plan.nic)):
            needed.append("arping")
    yield from ((name, programs.package(name)) for name in needed)
    for check in plan.check if starting else ():
        if check.command:
            yield check.command[0], f"of the check {check.title}"


def lacking_room(job: Job) -> str:
    """Where there may be too little room, for people; empty if there is enough."""
    found = []
    free = _free(job.folder)
    if free < _FEWEST_BYTES:
        found.append(f"{job.folder} has {free} bytes left, fix-ups and reports need {_FEWEST_BYTES}")
    target = job.plan.target
    if target.is_file():
        status = target.stat()
        unallocated, free = status.st_size - status.st_blocks * 512, _free(target)
        if unallocated > free:
            cause = f"has holes of {unallocated} bytes, and its file system {free} bytes to fill them with"
            found.append(f"{target} {cause}")
    return "; ".join(found)


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def require_reachable(target: Path, libvirt: Libvirt) -> None:
    """Raises `Failed` if the user as whom libvirt runs QEMU cannot come to the target's folder: libvirt gives
    it the disk, and no folder above it.
    """
    user = _qemu_user()
    if user is None or user.pw_uid == 0 or libvirt.uri != DEFAULT_URI:
        return
    there = target.resolve()
    argv = [
        programs.find("setpriv"),
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--init-groups",
        "test",
        "-e",
    ]
    if programs.run([*argv, str(there)], capture_output=True, check=False).returncode == 1:
        raise Failed(
            target,
            f"cannot be reached by {user.pw_name}, as whom libvirt runs QEMU: a folder above it is closed",
            f"open it (setfacl -m u:{user.pw_name}:x FOLDER), or have the target elsewhere",
        )


def _qemu_user() -> pwd.struct_passwd | None:
    names = list(_QEMU_USERS)
    with suppress(OSError):
        found = re.search(
            r'^\s*user\s*=\s*"\+?([^"]+)"', _QEMU_CONF.read_text(errors="replace"), re.MULTILINE
        )
        names[:0] = [found[1]] if found else []
    for name in names:
        with suppress(KeyError):
            return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    return None
