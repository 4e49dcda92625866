"""Write the man pages from what `--help` is made of, and the JSON schemas: `make man`.

One page for each command and one for each of its subcommands, in the man macros (man-pages(7), groff_man(7)).
"""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

import blocksync.commands.typer_app
import orchestrate.cli
from blocksync.errors import BlocksyncError
from orchestrate.commands import schema_files

FOLDER = Path(__file__).parent
APPS = {"blocksync": blocksync.commands.typer_app.app, "xen2kvm": orchestrate.cli.app}

COMPLETION = (
    "{program} --install-completion adds completion of commands, options and paths to the start-up file of "
    "the shell that it is called from; {program} --show-completion prints it instead. Bash, zsh and fish are "
    "known. A package can write the files itself, with _{upper}_COMPLETE=source_bash (or source_zsh, "
    "source_fish) in the environment of {program}."
)


def pages() -> Iterator[tuple[str, str]]:
    """(file name, page) of every command."""
    for program, app in APPS.items():
        group = typer.main.get_command(app)
        yield f"{program}.1", _page(program, _overview(program, group))
        for name, command in _subcommands(group):
            yield f"{program}-{name}.1", _page(f"{program}-{name}", _subpage(program, name, command))


def _page(title: str, body: Iterator[str]) -> str:
    release = f"xen2kvm {version('xen2kvm')}"
    lines = [
        '.\\" Made by `make man`; not to be edited.',
        f'.TH {title.upper()} 1 "" "{release}" "User Commands"',
    ]
    return "\n".join([*lines, *body]) + "\n"


def _overview(program: str, group: Any) -> Iterator[str]:
    yield from _name(program, group.help)
    yield ".SH SYNOPSIS"
    yield f".B {program}"
    yield ".I COMMAND"
    yield "[OPTIONS] ..."
    yield ".SH DESCRIPTION"
    yield from _paragraphs(group.help)
    yield ".SH COMMANDS"
    for name, command in _subcommands(group):
        yield ".TP"
        yield f".BR {_text(f'{program}-{name}')} (1)"
        yield _text(_summary(command.help))
    yield from _options(group.params)
    yield ".SH COMPLETION"
    yield _text(COMPLETION.format(program=program, upper=program.upper()))
    yield from _exit_status()
    yield from _see_also(program, [name for name, _ in _subcommands(group)])


def _subpage(program: str, name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    yield from _name(f"{program}-{name}", command.help)
    yield ".SH SYNOPSIS"
    yield f".B {program} {name}"
    yield "[OPTIONS]"
    yield f".I {' '.join(_placeholder(each) for each in arguments)}"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command.help)
    yield ".SH ARGUMENTS"
    for each in arguments:
        yield ".TP"
        yield f".I {_placeholder(each)}"
        yield _text(each.help)
    yield from _options([each for each in command.params if each.param_type_name == "option"])
    yield from _exit_status()
    yield from _see_also(program, [])


def _name(title: str, text: str) -> Iterator[str]:
    summary = _summary(text).rstrip(".")
    yield ".SH NAME"
    yield f"{_text(title)} \\- {_text(summary[0].lower() + summary[1:])}"


def _options(options: list[Any]) -> Iterator[str]:
    yield ".SH OPTIONS"
    for option in options:
        if not option.hidden:
            yield ".TP"
            yield _flags(option)
            yield _text(option.help + _default(option))
    yield ".TP"
    yield f"{_bold('-h')}, {_bold('--help')}"
    yield "Show a summary of this page."


def _flags(option: Any) -> str:
    names = ", ".join(_bold(name) for name in [*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} \\fI{_text(_placeholder(option))}\\fP"


def _placeholder(parameter: Any) -> str:
    """What stands for the value: the metavar, the choices, or the name."""
    if parameter.metavar:
        return str(parameter.metavar)
    record = parameter.get_help_record(typer.Context(typer.main.get_command(APPS["xen2kvm"])))
    choices = re.search(r"\w+(?:\|\w+)+", record[0])
    return choices[0] if choices else str(parameter.name).upper()


def _default(option: Any) -> str:
    if option.is_flag or option.required or option.default in (None, [], ()):
        return " Required." if option.required else ""
    return (
        f" Default: {option.default:g}."
        if isinstance(option.default, float)
        else f" Default: {option.default}."
    )


def _exit_status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    yield from (".TP", ".B 0", "Done.")
    for error in sorted(BlocksyncError.__subclasses__(), key=lambda error: error.exit_code):
        yield ".TP"
        yield f".B {int(error.exit_code)}"
        yield _text(_summary(error.__doc__ or ""))


def _see_also(program: str, names: list[str]) -> Iterator[str]:
    others = [f"{program}-{name}" for name in names] or [program]
    others += [other for other in APPS if other != program]
    yield ".SH SEE ALSO"
    for number, other in enumerate(others, 1):
        yield f".BR {_text(other)} (1){'' if number == len(others) else ','}"


def _subcommands(group: Any) -> list[tuple[str, Any]]:
    return [(name, command) for name, command in group.commands.items() if not command.hidden]


def _summary(text: str) -> str:
    """The first sentence."""
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fP"


def _text(text: str) -> str:
    """Plain text as roff: backslashes, hyphens that are to be copied, quotes and dots at a line's start."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fP", escaped)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def main() -> None:
    wanted = dict(pages())
    for old in FOLDER.glob("*.1"):
        if old.name not in wanted:
            old.unlink()
    for name, page in wanted.items():
        (FOLDER / name).write_text(page)
    _write_schemas()


def _write_schemas() -> None:
    """The schemas are made from the same commands, and become stale with them."""
    folder = schema_files.folder()
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, schema in schema_files.made().items():
        (folder / f"{name}.json").write_text(schema_files.as_text(schema))


if __name__ == "__main__":
    main()
