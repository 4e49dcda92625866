"""What --json and --log-json print, as structs: the schemas are made from these, and tests hold real output
against the schemas. Nothing else needs them.

Sizes are in bytes, times in seconds. Fields may be added; what is here keeps its name and its meaning.
"""

from typing import Literal

import msgspec

from blocksync.tuning.tune import Row


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the results and their parts."""


class Error(_Result, frozen=True, kw_only=True):
    """Why a command failed: what it is about, the cause, what to do. `guard` is the name that --override
    takes, where a guard said no.
    """

    thing: str
    cause: str
    way_out: str
    guard: str | None


class CommandResult(_Result, frozen=True, kw_only=True):
    """What the one object of every command has, however it ended. `command` is null when the command line
    named none, `guest` and `target` before they are known.
    """

    format: Literal[1]
    program: Literal["blocksync", "xen2kvm"]
    command: str | None
    guest: str | None
    target: str | None
    status: Literal["done", "failed", "usage", "refused", "differences", "interrupted"]
    exit_code: int
    error: Error | None


class SyncResult(_Result, frozen=True, kw_only=True):
    """A pass. `bytes_to_write` is what a dry run says that a pass would write, at most; `bytes_zeroed` became
    holes; `target_bytes_read` was read of the target.
    """

    bytes_total: int
    bytes_read: int
    target_bytes_read: int
    bytes_changed: int
    bytes_written: int
    bytes_to_write: int
    bytes_zeroed: int
    extents_written: int
    seconds: float
    dry_run: bool
    notes: tuple[str, ...]
    block_size: int
    size: int


class VerifyResult(_Result, frozen=True, kw_only=True):
    """A comparison: the root of each side, and what differs as offset and length."""

    equal: bool
    hash: str
    source_root: str
    target_root: str
    differing: tuple[tuple[int, int], ...]


class TuneResult(_Result, frozen=True, kw_only=True):
    """What was measured for each block size, and which one is recommended."""

    rows: tuple[Row, ...]
    block_size: int
    size: int
    pattern: str
    share: float
    link: float | None
    notes: tuple[str, ...]


class ChangedResult(_Result, frozen=True, kw_only=True):
    """Candidates of a volume, as offset and length; `everything` where there is no list of what changed."""

    size: int
    everything: bool
    why: str
    extents: tuple[tuple[int, int], ...]


class _Line(_Result, frozen=True, kw_only=True):
    """What each line of --log-json has; `time` is since 1970."""

    format: Literal[1]
    time: float


class Said(_Line, frozen=True, kw_only=True):
    """Something that the user should know."""

    event: Literal["note", "warning"]
    text: str


class ErrorLine(_Line, frozen=True, kw_only=True):
    """Why the command fails; the fields are those of an error."""

    event: Literal["error"]
    thing: str
    cause: str
    way_out: str
    guard: str | None


class CommandLine(_Line, frozen=True, kw_only=True):
    """With -v: a command that was run on a host; `status` is null where it did not end as it should."""

    event: Literal["command"]
    host: str
    argv: tuple[str, ...]
    status: int | None
    seconds: float


class StepLine(_Line, frozen=True, kw_only=True):
    """A step of a command. `seconds` are since it began; `of` is how many it may take, null where nobody
    knows; `detail` is what it is at.
    """

    event: Literal["step"]
    step: str
    status: Literal["begun", "running", "done", "failed"]
    seconds: float
    of: float | None
    detail: str


class ProgressLine(_Line, frozen=True, kw_only=True):
    """How far a task is; see blocksync.progress.Progress."""

    event: Literal["progress"]
    task: str
    phase: str
    bytes_done: int
    bytes_looked_at: int
    bytes_total: int
    bytes_changed: int
    bytes_written: int
    bytes_read: int
    bytes_moved: int
    seconds: float
    bytes_to_read: int | None
    limit: int | None
    rate: int
    eta: float | None


LOG_LINES = (Said, ErrorLine, CommandLine, StepLine, ProgressLine)
"""The lines of --log-json. They are told apart by `event`."""
