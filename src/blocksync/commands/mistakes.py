"""What both commands have in common on their command lines: -h beside --help, -V, completion from a list, and
a mistake there told as every other error is: thing, cause, hint.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version as version_of
from typing import Annotated, Any

import typer

from blocksync.commands.outcome import outcome
from blocksync.errors import Failed, Usage
from blocksync.foreign import shown

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
"""What a typer.Typer of ours is made with."""

# The base of every mistake that typer finds; it has no public name.
_Mistake: Any = typer.BadParameter.__base__


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{outcome.program} {version_of('xen2kvm')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
]


def carried_out(app: typer.Typer, program: str, words: list[str]) -> int:
    """Have typer read a command line and carry it out; the exit code. Raises Usage for a mistake in it."""
    try:
        ended = typer.main.get_command(app)(words, prog_name=program, standalone_mode=False)
    except _Mistake as mistake:
        if type(mistake).__name__ == "NoArgsIsHelpError":
            # The help is the message.
            typer.echo(mistake.format_message(), err=True)
            return int(Usage.exit_code)
        raise _told(mistake, " ".join([program, *words[:1]]) if words[0].isalpha() else program) from None
    except typer.Abort:
        raise Failed(program, "was not confirmed", "nothing was done; answer y to go on") from None
    return ended if isinstance(ended, int) else 0


def _told(mistake: Any, command: str) -> Usage:
    context = mistake.ctx
    if context is not None:
        command = context.command_path
    if context is not None and context.parent is not None:
        outcome.command = context.info_name
    see = f"`{command} -h` says what it takes"
    parameter = getattr(mistake, "param", None)
    hint = parameter.get_error_hint() if parameter is not None else getattr(mistake, "param_hint", None)
    match type(mistake).__name__:
        case "NoSuchOption":
            near = ", ".join(sorted(mistake.possibilities or ()))
            way_out = f"did you mean {near}? {see}" if near else see
            return Usage(shown(mistake.option_name), f"is no option of `{command}`", way_out)
        case "MissingParameter":
            return Usage(_plain(hint or command), "is missing", see)
        case "BadOptionUsage":
            return Usage(shown(mistake.option_name), _sentence(mistake.message), see)
        case "BadParameter" if hint:
            return Usage(_plain(hint), _sentence(mistake.message), see)
    return Usage(command, _sentence(mistake.message), see)


def _plain(hint: str | Iterable[str]) -> str:
    return shown(hint.replace("'", "") if isinstance(hint, str) else " / ".join(hint))


def _sentence(message: str) -> str:
    text = shown(message).rstrip(".")
    return text[:1].lower() + text[1:]


def completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell is told that may begin like a word."""

    def complete(incomplete: str) -> list[str]:
        return sorted(name for name in names if name.startswith(incomplete))

    return complete
