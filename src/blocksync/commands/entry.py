"""The entry of the `blocksync` command: from its words to what is carried out."""

import gc
import os
import sys
from typing import NoReturn

from blocksync import foreign
from blocksync.commands import run, signals, table
from blocksync.commands.outcome import conclude
from blocksync.errors import BlocksyncError, ExitCode

FEW_COLLECTIONS = 50_000


def main() -> None:
    """Entry point: whatever a command ends with becomes one message and its exit code."""
    # Start and end are a third of a short pass: importing makes no garbage, and what is left at the end
    # goes with the process.
    gc.set_threshold(FEW_COLLECTIONS)
    words = sys.argv[1:]
    if words[:1] == ["agent"]:
        _agent()
    conclude("blocksync", words, lambda: carry_out(words))


def _agent() -> NoReturn:
    """The far end of a pass: it talks to the near end alone, and ends when that is gone."""
    from blocksync.agent.installed import main as agent  # noqa: PLC0415

    signals.leave()
    try:
        code = agent()
    except (BlocksyncError, OSError) as error:
        print(f"error: {foreign.shown(str(error))}", file=sys.stderr)
        code = error.exit_code if isinstance(error, BlocksyncError) else ExitCode.FAILED
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    sys.stderr.flush()
    os._exit(int(code))


def carry_out(words: list[str]) -> int:
    """Do what a command line says; the exit code."""
    plain = table.read(words)
    if plain is None:
        from blocksync.commands import typer_app  # noqa: PLC0415

        return typer_app.carry_out(words)
    command, values = plain
    return run.do(command.name, values)
