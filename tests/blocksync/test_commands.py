"""The command line: what it prints, how it exits, and that both ways of reading it agree."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksync.commands import run, table
from blocksync.commands.table import COMMANDS, ValueKind, Values
from blocksync.errors import ExitCode

MIB = 2**20
Image = Callable[[str, int], Path]
BLOCKSYNC = (sys.executable, "-c", "from blocksync.commands.entry import main; main()")


def blocksync(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [*BLOCKSYNC, *(str(word) for word in words)]
    return subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_sync_prints_one_json_object_with_the_figures(image: Image, tmp_path: Path) -> None:
    source, target = image("source", MIB), tmp_path / "target"
    done = blocksync("sync", source, target, "--json")
    figures = json.loads(done.stdout)
    assert done.returncode == ExitCode.DONE
    assert figures["bytes_total"] == figures["bytes_read"] == figures["bytes_changed"] == MIB
    assert (figures["bytes_written"], figures["extents_written"]) == (MIB, 1)
    assert figures["seconds"] > 0
    assert target.read_bytes() == source.read_bytes()


def test_a_pass_that_needs_neither_imports_neither_numpy_nor_rich_nor_typer(
    image: Image, tmp_path: Path
) -> None:
    source, target = image("source", MIB), tmp_path / "target"
    code = (
        "import sys; from blocksync.commands import entry as cli; code = cli.carry_out(sys.argv[1:]);"
        "heavy = {'numpy', 'rich', 'typer', 'blake3', 'json', 'subprocess'} & set(sys.modules);"
        "print(sorted(heavy)); sys.exit(code)"
    )
    words = ["sync", source, target, "--digests", tmp_path / "digests"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ("sync",),
        ("sync", "a"),
        ("sync", "a", "b", "c"),
        ("sync", "a", "b", "--nonsense"),
        ("sync", "a", "b", "--size"),
        ("sync", "/nowhere/a", "/nowhere/b"),
        ("sync", "/etc/hostname", "/nowhere/b"),
        ("sync", "/etc/hostname", "/etc", "--size", "1"),
        ("sync", "/etc/hostname", "/tmp/b", "--block-size", "5000"),
        ("sync", "/etc/hostname", "/tmp/b", "--size", "1 furlong"),
        ("sync", "/etc/hostname", "/tmp/b", "--hash", "md5"),
        ("sync", "/etc/hostname", "/tmp/b", "--override", "nonsense"),
        ("sync", "/etc/hostname", "/tmp/b", "--only", "/nowhere"),
        ("sync", "/etc/hostname", "/tmp/b", "--bwlimit", "0"),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_mistakes_exit_2_with_a_message_and_without_a_traceback(words: tuple[str, ...]) -> None:
    done = blocksync(*words)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_refusal_exits_3_and_names_the_guard_that_may_be_overridden(image: Image) -> None:
    source, target = image("source", 8 * MIB), image("target", 8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", target], check=True)
    done = blocksync("sync", source, target)
    assert done.returncode == ExitCode.REFUSED
    assert "--override signature" in done.stderr
    assert blocksync("sync", source, target, "--override", "signature").returncode == ExitCode.DONE


def test_verify_exits_4_on_a_difference_and_says_where(image: Image) -> None:
    source, target = image("source", MIB), image("target", 2 * MIB)
    assert blocksync("sync", source, target, "--target-offset", "1MiB").returncode == ExitCode.DONE
    assert blocksync("verify", source, target, "--target-offset", "1MiB").returncode == ExitCode.DONE
    with target.open("r+b") as file:
        file.seek(MIB + 8192)
        file.write(bytes([source.read_bytes()[8192] ^ 255]))
    done = blocksync("verify", source, target, "--target-offset", "1MiB")
    assert done.returncode == ExitCode.DIFFERENCES
    assert "differs: 4096 bytes at 8192" in done.stdout


def test_log_json_lines_carry_their_format_and_count_up_to_everything(image: Image, tmp_path: Path) -> None:
    done = blocksync(
        "sync", image("source", 4 * MIB), tmp_path / "target", "--log-json", "--bwlimit", "16MiB"
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["format"] for line in lines} == {1}
    counts = [line["bytes_done"] for line in lines]
    assert counts == sorted(counts)
    assert counts[-1] == lines[-1]["bytes_total"] == 4 * MIB


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_a_safe_point_and_names_the_command_that_goes_on(
    image: Image, tmp_path: Path, number: signal.Signals
) -> None:
    source, target = image("source", 16 * MIB), tmp_path / "target"
    words = ("sync", str(source), str(target), "--digests", str(tmp_path / "digests"))
    argv = [*BLOCKSYNC, *words, "--bwlimit", "8MiB"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
        while not target.exists() or target.stat().st_blocks == 0:
            time.sleep(0.01)
        time.sleep(0.3)
        child.send_signal(number)
        message = child.communicate(timeout=20)[1]
    assert child.returncode == ExitCode.INTERRUPTED
    assert f"stopped by {number.name}" in message
    assert f"go on with: blocksync {' '.join(words)}" in message
    done = blocksync(*words, "--json")
    figures = json.loads(done.stdout)
    assert target.read_bytes() == source.read_bytes()
    assert 0 < figures["bytes_written"] < 16 * MIB
    assert figures["notes"] == []


def test_help_lists_every_option_of_the_table() -> None:
    for command in COMMANDS:
        text = blocksync(command.name, "--help", COLUMNS="200", TERM="dumb").stdout
        for option in command.options:
            assert option.flag in text
            assert not option.off or option.off in text


def words_of(command: table.Command) -> st.SearchStrategy[list[str]]:
    """Command lines, right and wrong."""
    value = st.sampled_from(["1MiB", "0", "x", "a b", "--json", "-", "", "=", "ä"])
    flags = [flag for option in command.options for flag in (option.flag, option.off) if flag]
    flag = st.sampled_from([*flags, "--help", "--nonsense", "-x", "--"])
    pair = st.tuples(flag, value)
    piece = st.one_of(
        value.map(lambda word: [word]),
        flag.map(lambda word: [word]),
        pair.map(list),
        pair.map(lambda words: ["=".join(words)]),
    )
    return st.lists(piece, max_size=6).map(lambda pieces: [command.name, *itertools.chain(*pieces)])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(COMMANDS).flatmap(words_of))
def test_what_is_read_without_typer_is_what_typer_reads(words: list[str]) -> None:
    plain = table.read(words)
    if plain is None:
        return
    from blocksync.commands.typer_app import app

    seen: list[Values] = []
    bodies = {name: lambda values: seen.append(values) or ExitCode.DONE for name in run.BODIES}
    before = dict(run.BODIES)
    run.BODIES.update(bodies)
    try:
        with pytest.raises(SystemExit) as end:
            app(words)
    finally:
        run.BODIES.update(before)
    assert end.value.code == 0
    (values,) = seen
    assert values == plain[1]


def test_the_table_has_one_body_a_command_and_no_name_twice() -> None:
    assert {command.name for command in COMMANDS} == set(run.BODIES)
    for command in COMMANDS:
        names = [argument.name for argument in command.arguments] + [
            option.name for option in command.options
        ]
        assert len(names) == len(set(names))
        assert all(
            option.help and (option.kind is ValueKind.FLAG or option.metavar) for option in command.options
        )
