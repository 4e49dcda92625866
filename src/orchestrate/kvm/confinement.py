"""How little the QEMU may do that runs a guest's code with nobody around it: libvirt does this for its own.

A guest that breaks out of QEMU finds itself as a user that owns nothing, in a process that cannot start
programs. Which of these arguments an emulator knows, and bears, only starting it tells.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from blocksync.hosts import programs
from orchestrate.kvm.accel import Accelerator
from orchestrate.kvm.qemu import emulator

_PROBE_SECONDS = 20.0
# The kernel's own nobody, by number: it owns no file, and needs no entry anywhere. QEMU becomes it once it
# has opened all that it needs, so the disk stays root's. The first spelling is that of QEMU 9.1 and later.
_NOBODY = "65534:65534"
_USERS = (("-run-with", f"user={_NOBODY}"), ("-runas", _NOBODY))
_SANDBOX = ("-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny")
# To become another user would be its end; one that is nobody's gains nothing from these calls.
_SANDBOX_TO_STAY = (_SANDBOX[0], f"{_SANDBOX[1]},elevateprivileges=deny")


@dataclass(frozen=True, slots=True)
class Confinement:
    """QEMU's arguments for it, and what this QEMU cannot do of it, in words; empty when it can do all."""

    arguments: tuple[str, ...]
    lacks: str


@cache
def confinement(accelerator: Accelerator) -> Confinement:
    """The tightest that this host's emulator starts with; asked once in the life of a process."""
    found = (choice for choice in _choices() if _starts(accelerator, choice.arguments))
    return next(found, Confinement((), "QEMU ran the guest with all that this user may do, and no sandbox"))


def _choices() -> Iterator[Confinement]:
    """The tightest first."""
    if os.geteuid() != 0:
        yield Confinement(_SANDBOX_TO_STAY, "")
        return
    yield from (Confinement((*user, *_SANDBOX), "") for user in _USERS)
    yield from (
        Confinement(user, "QEMU ran the guest without a sandbox: it has no -sandbox") for user in _USERS
    )
    yield Confinement(
        _SANDBOX_TO_STAY, "QEMU ran the guest as root: it has neither -run-with user= nor -runas"
    )


def _starts(accelerator: Accelerator, arguments: tuple[str, ...]) -> bool:
    command = [emulator(), "-accel", accelerator, "-machine", "none", "-nodefaults", "-no-user-config"]
    command += ["-display", "none", "-monitor", "stdio", *arguments]
    try:
        ended = programs.run(
            command, input=b"quit\n", capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0
