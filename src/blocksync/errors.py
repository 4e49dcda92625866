"""What can go wrong, and the exit code that each kind of failure owns.

This is the one table of exit codes; both commands use it and `docs/runbook.md` shows it.
An error says three things: the thing it is about, the cause, and the hint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from blocksync.foreign import without_control

MOST_CHARACTERS = 16384
"""Of an error's cause: the last lines of a console are some of the longest."""


class ExitCode(IntEnum):
    """Exit codes of `blocksync` and `xen2kvm`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    DIFFERENCES = 4
    INTERRUPTED = 5


class BlocksyncError(Exception):
    """Base of every error that the user is meant to read.

    `thing` is what the error is about (a path, a device, `file:line:column`), `cause` what is wrong
    with it, `way_out` what to do next (may be empty when nothing sensible can be advised). None of them
    keeps a control character but line ends, whoever's words they quote.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, thing: object, cause: str, way_out: str = "") -> None:
        self.thing, self.cause, self.way_out = (
            without_control(str(text), MOST_CHARACTERS) for text in (thing, cause, way_out)
        )
        told = f"{self.thing}: {self.cause}"
        super().__init__(told + (f"\n  hint: {self.way_out}" if self.way_out else ""))


class Failed(BlocksyncError):
    """Something broke while work was under way (I/O error, a tool that failed)."""

    exit_code = ExitCode.FAILED


class Usage(BlocksyncError):
    """The input is wrong: an option, a configuration, a plan. Nothing was written."""

    exit_code = ExitCode.USAGE


class Refused(BlocksyncError):
    """A guard said no. `guard` is the name that `--override` takes. Nothing was written."""

    exit_code = ExitCode.REFUSED

    def __init__(self, thing: object, cause: str, way_out: str = "", *, guard: str) -> None:
        super().__init__(thing, cause, way_out)
        self.guard = guard


class Differences(BlocksyncError):
    """Source and target differ."""

    exit_code = ExitCode.DIFFERENCES


class Interrupted(BlocksyncError):
    """Stopped by a signal at a safe point; what is true was committed, the same command resumes."""

    exit_code = ExitCode.INTERRUPTED


def why(error: OSError | ValueError) -> str:
    """The cause of a call that failed: ValueError is that of a path no system can have."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


CHECK = "check the device and `dmesg`, then run the same command again"


@contextmanager
def telling(thing: object, what: str, way_out: str = CHECK) -> Iterator[None]:
    """Turn an error of the operating system into Failed: `thing` `what`, because of that error."""
    try:
        yield
    except OSError as error:
        raise Failed(thing, f"{what}: {why(error)}", way_out) from error
