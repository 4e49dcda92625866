"""A mount namespace that one thread of this process is in, and nobody else.

What is mounted there has no path on this host: no other process sees it, walks into it or keeps it busy. It
is reached by descriptors, which all threads share. When the process ends, even by kill -9, the namespace goes
with its only thread, and the mounts with it. unshare(2) takes a single thread out of the namespace of the
others; Python 3.11 has no wrapper for it, and none for mount(2), so they are called by ctypes.
"""

import ctypes
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from blocksync.errors import Failed

# sched.h, sys/mount.h
_NEW_NAMESPACE = 0x20000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_PROGRAMS = 1, 2, 4, 8
_RECURSIVE, _SLAVE = 1 << 14, 1 << 19
_DETACH = 2
# Every Linux host has this folder, and nothing in the thread needs it: there alone the guest lies over it.
_ROOT = "/run"

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """Where a guest is mounted: its root file system first, then others inside it."""

    def __init__(self, thread: Executor) -> None:
        self._thread = thread

    def mount(
        self, device: Path, filesystem: str, options: Sequence[str], *, read_only: bool, at: int | None = None
    ) -> None:
        """Mount `device` at the folder `at`, a descriptor from in here; the guest's root without it.

        Set-user-ID bits, device nodes and programs in it have no effect. Raises OSError.
        """
        place = _ROOT if at is None else f"/proc/self/fd/{at}"
        flags = _NO_SUID | _NO_DEVICES | _NO_PROGRAMS | (_READ_ONLY if read_only else 0)
        self._thread.submit(_mount, str(device), place, filesystem, flags, ",".join(options)).result()

    def root(self) -> int:
        """A new descriptor of the guest's root, which must be closed for the mounts to go. Raises OSError."""
        return self._thread.submit(os.open, _ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC).result()


@contextmanager
def private_namespace() -> Iterator[Namespace]:
    """A new mount namespace. At the end what is mounted in it is unmounted, at once where nobody has a file
    of it open, and else when the last one is closed. Raises `Failed`, as without the right to mount.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="mounts of a guest") as thread:
        try:
            thread.submit(_leave_the_others).result()
        except OSError as error:
            cause, way_out = f"cannot be made: {error.strerror}", "run this as root, where it may mount"
            raise Failed("a mount namespace", cause, way_out) from error
        try:
            yield Namespace(thread)
        finally:
            with suppress(OSError):  # nothing is mounted
                thread.submit(_call, _libc.umount2, os.fsencode(_ROOT), _DETACH).result()


def sync_filesystem(descriptor: int) -> None:
    """Make durable what was written to the file system of an open folder. Raises OSError, also for a write
    that failed since the folder was opened, and nobody was told of.
    """
    _call(_libc.syncfs, descriptor)


def _leave_the_others() -> None:
    _call(_libc.unshare, _NEW_NAMESPACE)
    # Not private: what others unmount of their own would then stay in here, and stay busy.
    _mount(None, "/", None, _RECURSIVE | _SLAVE, None)


def _mount(source: str | None, place: str, filesystem: str | None, flags: int, options: str | None) -> None:
    words = (None if word is None else os.fsencode(word) for word in (source, place, filesystem))
    _call(_libc.mount, *words, ctypes.c_ulong(flags), None if options is None else os.fsencode(options))


def _call(function: "ctypes._NamedFuncPointer", *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
