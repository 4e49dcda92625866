"""What a command says besides its result: notes, warnings, errors, and with -v each command that it runs.

It goes to standard error, as plain lines or as JSON lines, and to the job's log where there is one.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from blocksync.errors import MOST_CHARACTERS, BlocksyncError
from blocksync.foreign import without_control

LOG_FORMAT = 1
THIS_MACHINE = "this machine"


class Log(Protocol):
    """Where what is said is kept; it may say where that is."""

    @property
    def place(self) -> str:
        """Its name for people."""

    def write(self, event: str, text: str) -> None:
        """Keep a text, which may have several lines. Raises nothing."""


class Voice:
    """How this process speaks. `quiet` leaves errors alone; `verbosity` counts the -v."""

    def __init__(self) -> None:
        self.json_lines = False
        self.quiet = False
        self.verbosity = 0
        self.log: Log | None = None

    def note(self, text: str) -> None:
        """What the user should know, and nothing fails for."""
        self._say("note", text)

    def warn(self, text: str) -> None:
        """What the user should look at before he goes on."""
        self._say("warning", text)

    def error(self, error: BlocksyncError) -> None:
        """Why the command fails."""
        self.record("error", str(error))
        if self.json_lines:
            self._line("error", **fields_of(error))
        else:
            _print(f"error: {error}")

    @contextmanager
    def running(self, host: str, argv: Sequence[str]) -> Iterator[Callable[[int], None]]:
        """Tell of a command that the block runs on a host, once it is over: with its seconds, and with the
        status that was given to what this yields.
        """
        began, given = time.monotonic(), list[int]()
        try:
            yield given.append
        finally:
            self._ran(host, argv, given[-1] if given else None, time.monotonic() - began)

    def _ran(self, host: str, argv: Sequence[str], status: int | None, seconds: float) -> None:
        if self.log is None and not self.verbosity:
            return
        from shlex import join  # noqa: PLC0415

        command, ended = join(argv), "no status" if status is None else f"status {status}"
        self.record("command", f"{host}: {command} ({ended}, {seconds:.2f} s)")
        if not self.verbosity or self.quiet:
            return
        if self.json_lines:
            self._line("command", host=host, argv=list(argv), status=status, seconds=round(seconds, 3))
        else:
            _print(f"{seconds:8.2f} s  {host}: {command}" + (f" ({ended})" if status else ""))

    def starts(self, argv: Sequence[str]) -> None:
        """A program of this machine that goes on beside the command: a virtual machine, for one."""
        from shlex import join  # noqa: PLC0415

        self.record("command", f"{THIS_MACHINE}: {join(argv)} (goes on)")

    def record(self, event: str, text: str) -> None:
        """Keep something in the log that nobody has to see."""
        if self.log is not None:
            self.log.write(event, text)

    def _say(self, event: str, text: str) -> None:
        self.record(event, text)
        if self.quiet:
            return
        if self.json_lines:
            self._line(event, text=without_control(text, MOST_CHARACTERS))
        else:
            _print(f"{event}: {without_control(text, MOST_CHARACTERS)}")

    def _line(self, event: str, **more: object) -> None:
        _print(json_line(event, **more))


voice = Voice()
"""The one of this process: it has one standard error."""


def json_line(event: str, **more: object) -> str:
    """A line of --log-json, without its end."""
    from json import dumps  # noqa: PLC0415

    return dumps({"format": LOG_FORMAT, "time": round(time.time(), 3), "event": event, **more})


def fields_of(error: BlocksyncError) -> dict[str, object]:
    """An error as JSON's types."""
    return {
        "thing": error.thing,
        "cause": error.cause,
        "way_out": error.way_out,
        "guard": getattr(error, "guard", None),
    }


def _print(line: str) -> None:
    # In one piece: several threads may speak.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
