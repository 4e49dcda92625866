"""`xen2kvm schema`: what the JSON of both commands and the files of a job look like."""

from typing import Annotated

import typer

from blocksync.errors import Usage
from blocksync.foreign import shown
from orchestrate.commands import results, schema_files, show
from orchestrate.commands.options import Json


def _complete(incomplete: str) -> list[str]:
    return [name for name in schema_files.names() if name.startswith(incomplete)]


def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Which one; all names are printed if left out.", metavar="NAME", autocompletion=_complete
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Print the JSON schema of a command's --json, of a log line, or of a file in a job's folder."""
    known = schema_files.names()
    if name is None:
        if json:
            show.give(results.SchemaResult(names=tuple(known)))
        else:
            typer.echo("\n".join(known))
        return
    if name not in known:
        raise Usage(shown(name), "is no schema", f"one of: {', '.join(known)}")
    if json:
        show.give(results.SchemaResult(content=schema_files.read(name)))
    else:
        typer.echo(schema_files.text(name), nl=False)
