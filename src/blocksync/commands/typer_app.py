"""The same commands through typer: help, messages about mistakes, shell completion."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from blocksync.commands import mistakes, run
from blocksync.commands.table import COMMANDS, Argument, Command, Option, ValueKind
from blocksync.devices.guards import OVERRIDABLE
from blocksync.errors import ExitCode
from blocksync.transports.choice import KINDS

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # The brackets of [user@]host are no markup.
    rich_markup_mode=None,
    context_settings=mistakes.CONTEXT,
    help="Make a range of a block device or image equal to another, writing only what differs.",
)


@app.callback()
def _of_all_commands(*, version: mistakes.Version = False) -> None:
    """The options before a command."""


def carry_out(words: list[str]) -> int:
    """Do what a command line says, or say what is wrong with it; the exit code."""
    return mistakes.carried_out(app, "blocksync", words)


_COMPLETED: dict[str, Callable[[str], list[str]]] = {
    "override": mistakes.completing(OVERRIDABLE),
    "transport": mistakes.completing(KINDS),
}


def _parameter_of_argument(argument: Argument) -> inspect.Parameter:
    # As a string: a Path would make one slash of the two in ssh://host/path.
    kind = Annotated[Path, typer.Argument(help=argument.help, path_type=str)]
    return inspect.Parameter(argument.name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)


def _parameter_of_option(option: Option) -> inspect.Parameter:
    flag = f"{option.flag}/{option.off}" if option.off else option.flag
    names = [flag, option.short] if option.short else [flag]
    given = typer.Option(
        *names,
        help=option.help,
        metavar=option.metavar or None,
        autocompletion=_COMPLETED.get(option.name),
    )
    types: dict[ValueKind, Any] = {ValueKind.FLAG: bool, ValueKind.ONE: str | None, ValueKind.MANY: list[str]}
    default = list(option.unset) if isinstance(option.unset, tuple) else option.unset
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[types[option.kind], given],
        default=default,
    )


def _callback(command: Command) -> Callable[..., None]:
    """A function with the signature that the table says, for typer to read."""

    def callback(**values: Any) -> None:
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        if (code := run.do(command.name, plain)) != ExitCode.DONE:
            raise typer.Exit(code)

    parameters = [_parameter_of_argument(argument) for argument in command.arguments]
    parameters += [_parameter_of_option(option) for option in command.options]
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    callback.__doc__ = command.help
    return callback


for _command in COMMANDS:
    app.command(_command.name)(_callback(_command))
