"""The `blocksync` command: what each of its commands does with the values it was given."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from blocksync import foreign
from blocksync.commands.outcome import outcome
from blocksync.commands.table import Values
from blocksync.display.display import Display, display
from blocksync.errors import ExitCode, Usage
from blocksync.progress import Report
from blocksync.sizes import format_size, parse_size
from blocksync.voice import voice

if TYPE_CHECKING:
    from blocksync.passes import PassReport, PassRequest
    from blocksync.transports.choice import Kind
    from blocksync.transports.reach import Reach
    from blocksync.verify import Comparison


def do(name: str, values: Values) -> int:
    """Carry out the command of this name."""
    target = values.get("target")
    outcome.begin(name, as_json=bool(values["json"]), target=None if target is None else str(target))
    voice.json_lines, voice.quiet = bool(values["log_json"]), bool(values["quiet"])
    voice.verbosity = int(bool(values["verbose"]))
    return int(BODIES[name](values))


def sync(values: Values) -> ExitCode:
    """`blocksync sync`"""
    with _display(values) as shown:
        report = _sync(values, shown.task("sync", _before(values)))
    for note in report.notes:
        voice.note(note)
    if values["json"]:
        outcome.give(report.as_fields())
    else:
        print(summary(report))
    return ExitCode.DONE


def _sync(values: Values, progress: Report) -> "PassReport":
    if _is_between_hosts(values):
        from blocksync.remote import endpoints  # noqa: PLC0415

        return endpoints.sync(*_ends(values), _request(values), _reach(values), progress)
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
        outcome.give({"equal": result.equal, "hash": result.hash, **roots, "differing": differing})
    else:
        print(f"{result.source_root}  {foreign.shown(source)}\n{result.target_root}  {foreign.shown(target)}")
        for offset, length in result.differing.pairs():
            print(f"differs: {length} bytes at {offset}")
    return ExitCode.DONE if result.equal else ExitCode.DIFFERENCES


def _verify(values: Values, progress: Report) -> "Comparison":
    offset, size = _size(values, "target_offset") or 0, _size(values, "size")
    direct, cache = bool(values["direct"]), bool(values["cache"])
    if _is_between_hosts(values):
        from blocksync.remote import endpoints  # noqa: PLC0415

        span = endpoints.Span(target_offset=offset, size=size, direct=direct, cache=cache)
        return endpoints.verify(*_ends(values), span, _reach(values), progress)
    from blocksync.verify import compare  # noqa: PLC0415

    source, target = _path(values, "source"), _path(values, "target")
    return compare(
        source, target, target_offset=offset, size=size, direct=direct, cache=cache, progress=progress
    )


def tune(values: Values) -> ExitCode:
    """`blocksync tune`"""
    from dataclasses import asdict  # noqa: PLC0415

    from blocksync.tuning import tune as tuning  # noqa: PLC0415

    request = tuning.TuneRequest(
        source=_here(values, "source"),
        target=_here(values, "target"),
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
        voice.note(note)
    if values["json"]:
        outcome.give(asdict(result))
    else:
        print(tuning.table(result))
    return ExitCode.DONE


def changed(values: Values) -> ExitCode:
    """`blocksync changed`"""
    from blocksync.changes import local  # noqa: PLC0415

    found = local.changed(
        _here(values, "volume"),
        snapshot=None if values["since"] is None else str(values["since"]),
        only=None if values["only"] is None else _path(values, "only"),
    )
    if values["json"]:
        outcome.give(found.as_fields())
    else:
        voice.note(found.why)
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
    verb, count = "written", report.bytes_written
    if report.dry_run:
        verb, count = "would be written", report.bytes_to_write
    holes = f", {format_size(report.bytes_zeroed)} made holes" if report.bytes_zeroed else ""
    return (
        f"{format_size(report.bytes_total)} compared, {format_size(report.bytes_changed)} differed, "
        f"{format_size(count)} {verb} in {report.extents_written} extents{holes}, "
        f"{report.seconds:.2f} s"
    )


def _request(values: Values) -> "PassRequest":
    from blocksync.digests import hashes  # noqa: PLC0415
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
    if not names or not isinstance(names, tuple):
        return frozenset()
    from blocksync.devices.guards import check_overrides  # noqa: PLC0415

    check_overrides(frozenset(names))
    return frozenset(names)


def _ends(values: Values) -> tuple[str, str]:
    """Source and target as they were given."""
    return str(values["source"]), str(values["target"])


def _is_between_hosts(values: Values) -> bool:
    return any(_is_far(end) for end in _ends(values))


def _is_far(text: str) -> bool:
    if ":" not in text:
        return False
    from blocksync.locations import is_far  # noqa: PLC0415

    return is_far(text)


def _reach(values: Values) -> "Reach":
    from blocksync.transports.reach import Reach  # noqa: PLC0415

    fingerprint, config = values["host_key_fingerprint"], values["ssh_config"]
    return Reach(
        # What is not a kind of transport is refused where one is chosen.
        transport=cast("Kind", values["transport"]),
        fingerprint=None if fingerprint is None else str(fingerprint),
        config=None if config is None else Path(str(config)),
    )


def _path(values: Values, name: str) -> Path:
    text = str(values[name])
    if text == "-":
        raise Usage(
            name, "is `-`, and no stream can be used there", "name a device or file (./- for a file -)"
        )
    return Path(text)


def _here(values: Values, name: str) -> Path:
    """The path of a device that has to be on this machine."""
    if _is_far(str(values[name])):
        raise Usage(
            str(values[name]), "is on another host", "run this there; a file here with such a name is ./NAME"
        )
    return _path(values, name)


def _size(values: Values, name: str) -> int | None:
    text = values[name]
    return None if text is None else parse_size(str(text))


def _before(values: Values) -> str:
    """What is waited for before a pass begins."""
    return "reaching the other host" if _is_between_hosts(values) else ""


def _display(values: Values) -> Display:
    color = not (values["no_color"] or os.environ.get("NO_COLOR"))
    return display(json_lines=bool(values["log_json"]), color=color, quiet=bool(values["quiet"]))
