"""The same commands through typer: help, messages about mistakes, shell completion."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from blocksync import cli
from blocksync.commands import COMMANDS, Argument, Command, Kind, Option

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a range of a block device or image equal to another, writing only what differs.",
)


def _parameter_of_argument(argument: Argument) -> inspect.Parameter:
    # As a string: a Path would make one slash of the two in ssh://host/path.
    kind = Annotated[Path, typer.Argument(help=argument.help, path_type=str)]
    return inspect.Parameter(argument.name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)


def _parameter_of_option(option: Option) -> inspect.Parameter:
    flag = f"{option.flag}/{option.off}" if option.off else option.flag
    given = typer.Option(flag, help=option.help, metavar=option.metavar or None)
    types: dict[Kind, Any] = {Kind.FLAG: bool, Kind.ONE: str | None, Kind.MANY: list[str]}
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
        raise typer.Exit(int(cli.BODIES[command.name](plain)))

    parameters = [_parameter_of_argument(argument) for argument in command.arguments]
    parameters += [_parameter_of_option(option) for option in command.options]
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    callback.__doc__ = command.help
    return callback


for _command in COMMANDS:
    app.command(_command.name)(_callback(_command))
