"""Who in a guest heeds the power button, which is all that a KVM host has to ask it to shut down.

systemd-logind(8) does, once there is a system bus for it; acpid(8) does. A small guest has neither: Xen asks
through the kernel.
"""

import posixpath

from orchestrate.guest.files.reading import Reading

_ACPID = ("/usr/sbin/acpid", "/sbin/acpid")
_LOGIND = ("/usr/lib/systemd/systemd-logind", "/lib/systemd/systemd-logind")
# The system bus's own configuration; others put files beside it.
_SYSTEM_BUS = ("/usr/share/dbus-1/system.conf", "/etc/dbus-1/system.conf")


def warnings(guest: Reading) -> tuple[str, ...]:
    """What to tell the operator of a guest in which nobody does. Nothing where its files cannot be seen."""
    if not guest.names("/etc") or _has(guest, _ACPID):
        return ()
    has_logind = _has(guest, _LOGIND)
    if has_logind and any(guest.read(path) is not None for path in _SYSTEM_BUS):
        return ()
    package = "dbus" if has_logind else "acpid"
    why = "its KVM host cannot ask it to shut down, and a rollback waits for that in vain"
    return (f"nobody in the guest heeds the power button: {why}; install {package} in it before the move",)


def _has(guest: Reading, programs: tuple[str, ...]) -> bool:
    return any(name in guest.names(folder) for folder, name in map(posixpath.split, programs))
