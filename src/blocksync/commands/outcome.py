"""How a command ends, whatever it ends with: one exit code, one error, and with --json one object.

Nothing that is raised is shown as a traceback. What nobody foresaw is a fault of ours: one line says so, and
where the traceback is kept.
"""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from blocksync.commands import signals, streams
from blocksync.errors import BlocksyncError, ExitCode, Failed, Interrupted
from blocksync.foreign import shown
from blocksync.voice import fields_of, voice

FORMAT = 1
SHOW_TRACEBACK = "XEN2KVM_TRACEBACK"
"""The variable that has a traceback shown as well."""

# What typer exits with after Ctrl-C.
_TYPER_INTERRUPTED = 130


@dataclass(slots=True)
class Outcome:
    """What the command of this process is about, and its result. `began` says that its command line was
    understood; `fields` are the result's, for --json.
    """

    program: str = ""
    words: list[str] = field(default_factory=list)
    command: str | None = None
    guest: str | None = None
    target: str | None = None
    as_json: bool = False
    began: bool = False
    fields: dict[str, object] = field(default_factory=dict)

    def begin(self, command: str, *, as_json: bool, target: str | None = None) -> None:
        """The command line was read: this is what it says."""
        self.command, self.as_json, self.target, self.began = command, as_json, target, True

    def about(self, guest: str, target: str | None) -> None:
        """Whom the command is about, once that is known."""
        self.guest, self.target = guest, target

    def give(self, fields: dict[str, object]) -> None:
        """The result, as JSON's types."""
        self.fields = fields

    def as_object(self, code: int, error: BlocksyncError | None) -> dict[str, object]:
        """What --json prints: the result's own fields, and what all commands have."""
        common = {
            "format": FORMAT,
            "program": self.program,
            "command": self.command,
            "guest": self.guest,
            "target": self.target,
            "status": ExitCode(code).name.lower(),
            "exit_code": code,
            "error": None if error is None else fields_of(error),
        }
        return {**self.fields, **common}


outcome = Outcome()
"""The one of this process: it has one standard output, and ends once."""


def conclude(program: str, words: list[str], command: Callable[[], object]) -> NoReturn:
    """Call a command, say what became of it, and end the process."""
    streams.make_lasting()
    _expect_the_worst()
    outcome.program, outcome.words = program, words
    # Until the command line is understood; an option's value that looks like this is no harm.
    outcome.as_json, voice.json_lines = "--json" in words, "--log-json" in words
    try:
        error, code = _ended(command)
        signals.ignore()
    except KeyboardInterrupt:
        # Once more, while the first one was dealt with.
        signals.ignore()
        error, code = _interrupted(None), int(ExitCode.INTERRUPTED)
    _leave(_told(error, code))


def _ended(command: Callable[[], object]) -> tuple[BlocksyncError | None, int]:
    try:
        signals.heed()
        ended = command()
    except SystemExit as end:
        if end.code == _TYPER_INTERRUPTED:
            return _interrupted(None), int(ExitCode.INTERRUPTED)
        return None, end.code if isinstance(end.code, int) else int(ExitCode.DONE if end.code is None else 1)
    except BaseException as raised:
        error = _as_error(raised)
        return error, int(error.exit_code)
    return None, int(ended) if isinstance(ended, int) else int(ExitCode.DONE)


def _as_error(raised: BaseException) -> BlocksyncError:
    """What is said of anything that a command may raise."""
    if isinstance(raised, KeyboardInterrupt | Interrupted):
        return _interrupted(raised)
    if isinstance(raised, BlocksyncError):
        _log_traceback(raised)
        return raised
    if isinstance(raised, MemoryError):
        return Failed(outcome.program, "is out of memory", "free some, and run the same command again")
    place = _kept_traceback(raised)
    if isinstance(raised, OSError):
        # Of a device nothing ends here: what reads or writes one says more.
        thing = raised.filename or outcome.program
        return Failed(thing, raised.strerror or str(raised), f"mend that; the traceback is in {place}")
    told = shown(f"{type(raised).__name__}: {raised}")
    return Failed(
        outcome.program, f"this is a fault of ours: {told}", f"report it; the traceback is in {place}"
    )


def _interrupted(stopped: BaseException | None) -> Interrupted:
    again = f"go on with: {shlex.join([outcome.program, *outcome.words])}"
    if isinstance(stopped, Interrupted):
        return Interrupted(stopped.thing, stopped.cause, again)
    return Interrupted(outcome.program, "was interrupted", again)


def _told(error: BlocksyncError | None, code: int) -> int:
    """Say how the command ended; the exit code."""
    if outcome.as_json and (outcome.began or error is not None):
        from json import dumps  # noqa: PLC0415

        sys.stdout.write(dumps(outcome.as_object(code, error)) + "\n")
    if error is not None:
        voice.error(error)
    if (fault := streams.fault()) is not None:
        voice.error(Failed("standard output", f"{fault.strerror}: the result did not arrive"))
        code = code or int(ExitCode.FAILED)
    voice.record("end", f"exit code {code}")
    return code


def _leave(code: int) -> NoReturn:
    """At once: a third of a short pass would be spent on putting away what goes with the process."""
    sys.stderr.flush()
    os._exit(code)


def _expect_the_worst() -> None:
    """What Python itself would print a traceback of, or a warning in the middle of JSON lines."""
    import threading  # noqa: PLC0415
    import warnings  # noqa: PLC0415

    threading.excepthook = _thread_ended
    sys.unraisablehook = lambda found: _log_traceback(found.exc_value)
    sys.excepthook = lambda _kind, raised, _trace: _leave(_told(_as_error(raised), int(ExitCode.FAILED)))
    warnings.showwarning = lambda message, *_: voice.record("warning", str(message))


def _thread_ended(ended: "object") -> None:
    raised = getattr(ended, "exc_value", None)
    if isinstance(raised, Exception):
        voice.error(_as_error(raised))


def _log_traceback(raised: BaseException | None) -> None:
    if voice.log is not None and raised is not None:
        voice.record("traceback", _traceback(raised))


def _kept_traceback(raised: BaseException) -> str:
    """Where the traceback is."""
    text = _traceback(raised)
    if os.environ.get(SHOW_TRACEBACK):
        voice.note(text)
    if voice.log is not None:
        voice.log.write("traceback", text)
        return voice.log.place
    import tempfile  # noqa: PLC0415

    try:
        fd, name = tempfile.mkstemp(prefix=f"{outcome.program}-fault-", suffix=".log")
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        return f"no file ({error.strerror}); {SHOW_TRACEBACK}=1 shows it"
    return name


def _traceback(raised: BaseException) -> str:
    from traceback import format_exception  # noqa: PLC0415

    return "".join(format_exception(raised))
