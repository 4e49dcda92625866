"""The `blocksync` command: what each of its commands does with the values it was given."""

import gc
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from blocksync import commands, foreign
from blocksync.commands import Values
from blocksync.display import Display, display
from blocksync.errors import BlocksyncError, ExitCode, Interrupted
from blocksync.progress import Report
from blocksync.sizes import format_size, parse_size

if TYPE_CHECKING:
    from blocksync.passes import PassReport, PassRequest
    from blocksync.remote.between import Reach
    from blocksync.verify import Comparison


# What typer exits with after Ctrl-C.
TYPER_INTERRUPTED = 130
FEW_COLLECTIONS = 50_000


def main() -> None:
    """Entry point: every BlocksyncError becomes one message and its exit code."""
    # Start and end are a third of a short pass: importing makes no garbage, and what is left at the end
    # goes with the process.
    gc.set_threshold(FEW_COLLECTIONS)
    _end(run(lambda: carry_out(sys.argv[1:])))


def _end(code: int) -> NoReturn:
    """Leave with `code` at once; an output that cannot be written is an error as everywhere."""
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"error: standard output: {error.strerror}", file=sys.stderr)
        code = code or int(ExitCode.FAILED)
    sys.stderr.flush()
    os._exit(code)


def run(command: Callable[[], object]) -> int:
    """Call a command (a typer app, for one); the exit code of whatever it ended with."""
    try:
        ended = command()
    except BlocksyncError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except OSError as error:
        # Nothing that reads or writes a device ends here; a closed standard output may.
        print(f"error: {foreign.shown(str(error))}", file=sys.stderr)
        return int(ExitCode.FAILED)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except SystemExit as end:
        if end.code == TYPER_INTERRUPTED:
            return int(ExitCode.INTERRUPTED)
        return end.code if isinstance(end.code, int) else int(ExitCode.FAILED)
    return int(ended) if isinstance(ended, int) else int(ExitCode.DONE)


def carry_out(words: list[str]) -> int:
    """Do what a command line says; the exit code."""
    try:
        return _carry_out(words)
    except Interrupted as stopped:
        again = shlex.join(["blocksync", *words])
        raise Interrupted(stopped.thing, stopped.cause, f"go on with: {again}") from stopped


def _carry_out(words: list[str]) -> int:
    if words[:1] == ["agent"]:
        from blocksync.agent import main as agent  # noqa: PLC0415

        return int(agent())
    plain = commands.read(words)
    if plain is None:
        from blocksync.terminal import app  # noqa: PLC0415

        app(words)
        return int(ExitCode.DONE)
    command, values = plain
    return int(BODIES[command.name](values))


def sync(values: Values) -> ExitCode:
    """`blocksync sync`"""
    with _display(values) as shown:
        report = _sync(values, shown.task("sync", _before(values)))
    for note in report.notes:
        _note(note)
    if values["json"]:
        _print_json(report.as_fields())
    else:
        print(summary(report))
    return ExitCode.DONE


def _sync(values: Values, progress: Report) -> "PassReport":
    if _is_between_hosts(values):
        from blocksync.remote import between  # noqa: PLC0415

        return between.sync(*_ends(values), _request(values), _reach(values), progress)
    from blocksync import passes  # noqa: PLC0415

    return passes.run(_request(values), progress=progress)


def verify(values: Values) -> ExitCode:
    """`blocksync verify`"""
    with _display(values) as shown:
        result = _verify(values, shown.task("verify", _before(values)))
    source, target = _ends(values)
    if values["json"]:
        roots = {"source_root": result.source_root, "target_root": result.target_root}
        differing = result.differing.pairs()
        _print_json({"equal": result.equal, "hash": result.hash, **roots, "differing": differing})
    else:
        print(f"{result.source_root}  {foreign.shown(source)}\n{result.target_root}  {foreign.shown(target)}")
        for offset, length in result.differing.pairs():
            print(f"differs: {length} bytes at {offset}")
    return ExitCode.DONE if result.equal else ExitCode.DIFFERENCES


def _verify(values: Values, progress: Report) -> "Comparison":
    offset, size = _size(values, "target_offset") or 0, _size(values, "size")
    direct, cache = bool(values["direct"]), bool(values["cache"])
    if _is_between_hosts(values):
        from blocksync.remote import between  # noqa: PLC0415

        span = between.Span(target_offset=offset, size=size, direct=direct, cache=cache)
        return between.verify(*_ends(values), span, _reach(values), progress)
    from blocksync.verify import compare  # noqa: PLC0415

    source, target = _path(values, "source"), _path(values, "target")
    return compare(
        source, target, target_offset=offset, size=size, direct=direct, cache=cache, progress=progress
    )


def tune(values: Values) -> ExitCode:
    """`blocksync tune`"""
    from dataclasses import asdict  # noqa: PLC0415

    from blocksync import tune as tuning  # noqa: PLC0415

    request = tuning.TuneRequest(
        source=_path(values, "source"),
        target=_path(values, "target"),
        target_offset=_size(values, "target_offset") or 0,
        dirty=None if values["dirty"] is None else str(values["dirty"]),
        interval=tuning.parse_seconds(str(values["interval"])),
        link=None if values["link"] is None else tuning.parse_link(str(values["link"])),
        rewrite=bool(values["rewrite"]),
        direct=bool(values["direct"]),
        cache=bool(values["cache"]),
        overrides=_overrides(values),
    )
    with _display(values) as shown:
        result = tuning.run(request, progress=shown.task("tune"))
    for note in result.notes:
        _note(note)
    if values["json"]:
        _print_json(asdict(result))
    else:
        print(tuning.table(result))
    return ExitCode.DONE


def changed(values: Values) -> ExitCode:
    """`blocksync changed`"""
    from blocksync.changes import local  # noqa: PLC0415

    found = local.changed(
        _path(values, "volume"),
        snapshot=None if values["since"] is None else str(values["since"]),
        only=None if values["only"] is None else _path(values, "only"),
    )
    if values["json"]:
        _print_json(found.as_fields())
    else:
        _note(found.why)
        print(found.extents.to_text(), end="")
    return ExitCode.DONE


BODIES: dict[str, Callable[[Values], ExitCode]] = {
    "sync": sync,
    "verify": verify,
    "tune": tune,
    "changed": changed,
}


def summary(report: "PassReport") -> str:
    """The report in one line."""
    verb = "would be written" if report.dry_run else "written"
    count = report.bytes_changed if report.dry_run else report.bytes_written
    holes = f", {format_size(report.bytes_zeroed)} made holes" if report.bytes_zeroed else ""
    return (
        f"{format_size(report.bytes_total)} compared, {format_size(report.bytes_changed)} differed, "
        f"{format_size(count)} {verb} in {report.extents_written} extents{holes}, "
        f"{report.seconds:.2f} s"
    )


def _request(values: Values) -> "PassRequest":
    from blocksync import hashes  # noqa: PLC0415
    from blocksync.passes import PassRequest  # noqa: PLC0415

    only = None
    if values["only"] is not None:
        from blocksync.extents import Extents  # noqa: PLC0415

        only = Extents.read(_path(values, "only"))
    return PassRequest(
        source=_path(values, "source"),
        target=_path(values, "target"),
        target_offset=_size(values, "target_offset") or 0,
        size=_size(values, "size"),
        digests=None if values["digests"] is None else _path(values, "digests"),
        block_size=_size(values, "block_size") or 0,
        hash=hashes.by_name(str(values["hash"])),
        compare=bool(values["compare"]),
        only=only,
        dry_run=bool(values["dry_run"]),
        direct=bool(values["direct"]),
        cache=bool(values["cache"]),
        bytes_per_second=_size(values, "bwlimit"),
        overrides=_overrides(values),
    )


def _overrides(values: Values) -> frozenset[str]:
    names = values["override"]
    return frozenset(names if isinstance(names, tuple) else ())


def _ends(values: Values) -> tuple[str, str]:
    """Source and target as they were given."""
    return str(values["source"]), str(values["target"])


def _is_between_hosts(values: Values) -> bool:
    return any(end.startswith("ssh:") for end in _ends(values))


def _reach(values: Values) -> "Reach":
    from blocksync.remote.between import Reach  # noqa: PLC0415

    fingerprint, config = values["host_key_fingerprint"], values["ssh_config"]
    return Reach(
        str(values["transport"]),
        None if fingerprint is None else str(fingerprint),
        None if config is None else Path(str(config)),
    )


def _path(values: Values, name: str) -> Path:
    return Path(str(values[name]))


def _size(values: Values, name: str) -> int | None:
    text = values[name]
    return None if text is None else parse_size(str(text))


def _before(values: Values) -> str:
    """What is waited for before a pass begins."""
    return "reaching the other host" if _is_between_hosts(values) else ""


def _display(values: Values) -> Display:
    color = not (values["no_color"] or os.environ.get("NO_COLOR"))
    return display(json_lines=bool(values["log_json"]), color=color)


def _note(text: str) -> None:
    print(f"note: {foreign.shown(text)}", file=sys.stderr)


def _print_json(fields: dict[str, object]) -> None:
    import json  # noqa: PLC0415

    print(json.dumps(fields))
