"""What every command of `xen2kvm` takes besides its own options, and is asked before it begins.

How it speaks (--json, --log-json, -v, -q), that no path is `-` where no stream can be, and that each guard of
--override is one that the command asks.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from blocksync.commands.outcome import outcome
from blocksync.errors import Usage
from blocksync.voice import voice
from orchestrate.commands import overrides
from orchestrate.commands.options import Json, LogJson

Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Show each command that is run on a host, with its arguments and its seconds.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors; the result as ever.")
]

_SPEECH = {
    "json": (Json, False),
    "log_json": (LogJson, False),
    "verbose": (Verbose, 0),
    "quiet": (Quiet, False),
}
_STREAMS = frozenset({"output"})
"""Where `-` is meant: standard output."""


def spoken(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with all these options; it is given those that it has a parameter for."""
    own = inspect.signature(command).parameters

    def told(**values: Any) -> None:
        outcome.begin(command.__name__, as_json=bool(values["json"]))
        voice.json_lines, voice.quiet = bool(values["log_json"]), bool(values["quiet"])
        voice.verbosity = int(values["verbose"])
        _refuse_dashes(values)
        overrides.require_known(command.__name__, values.get("override") or ())
        command(**{name: value for name, value in values.items() if name in own})

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _SPEECH.items()
        if name not in own
    ]
    told.__name__, told.__doc__ = command.__name__, command.__doc__
    parameters = _in_order(list(own.values()), added)
    # What typer reads.
    told.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    told.__annotations__ = {each.name: each.annotation for each in parameters}
    return told


def _in_order(own: list[inspect.Parameter], added: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """A command's own options first, and --no-color last, as it is everywhere."""
    last = [each for each in own if each.name == "no_color"]
    return [*(each for each in own if each.name != "no_color"), *added, *last]


def _refuse_dashes(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name not in _STREAMS and isinstance(value, str | Path) and str(value) == "-":
            raise Usage(
                name.replace("_", " "),
                "is `-`, and no stream can be used there: later commands need it again",
                "name a file (./- for a file of that name)",
            )
