"""What a command says: one object with --json, JSON lines with --log-json, nothing with -q; -h, -V, `-`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from blocksync.errors import ExitCode
from orchestrate.commands import schema_files

MIB = 2**20
Image = Callable[[str, int], Path]
FOLDER = Path(sys.executable).parent
LINE = schema_files.made()["log-line"]


def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    argv = [str(FOLDER / program), *(str(word) for word in words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def valid(program: str, *words: object) -> dict[str, Any]:
    """The object that a command prints, held against its schema; its lines on standard error as well."""
    done = run(program, *words, "--json", "--log-json")
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    name = f"{program}-{words[0]}"
    jsonschema.validate(found, schema_files.made()[name])
    for each in done.stderr.splitlines():
        jsonschema.validate(json.loads(each), LINE)
    assert found["exit_code"] == done.returncode
    return found


def test_every_command_of_blocksync_prints_what_its_schema_says(image: Image, tmp_path: Path) -> None:
    source, target = image("source", MIB), tmp_path / "target"
    dry = valid("blocksync", "sync", source, target, "--dry-run")
    assert (dry["bytes_written"], dry["bytes_to_write"], dry["bytes_changed"]) == (0, MIB, MIB)
    assert not target.exists()
    made = valid("blocksync", "sync", source, target)
    assert (made["bytes_written"], made["bytes_to_write"], made["status"]) == (MIB, 0, "done")
    assert valid("blocksync", "verify", source, target)["equal"] is True
    target.write_bytes(bytes(MIB))
    differs = valid("blocksync", "verify", source, target)
    assert (differs["status"], differs["error"], differs["differing"]) == ("differences", None, [[0, MIB]])
    assert valid("blocksync", "changed", source)["everything"] is True
    assert valid("blocksync", "tune", source, target, "--dirty=1%:4KiB")["rows"]


@pytest.mark.parametrize(
    ("words", "code", "thing"),
    [
        (("sync",), ExitCode.USAGE, "source"),
        (("sync", "a", "b", "--nonsense"), ExitCode.USAGE, "--nonsense"),
        (("sync", "/nowhere/a", "/nowhere/b"), ExitCode.USAGE, "/nowhere/a"),
        (("sync", "-", "b"), ExitCode.USAGE, "source"),
        (("sync", "/etc/hostname", "/etc/hostname"), ExitCode.REFUSED, "/etc/hostname"),
        (("sync", "/etc/hostname", "/etc/b", "--override=x"), ExitCode.USAGE, "x"),
        (("verify", "a", "b", "--override=x"), ExitCode.USAGE, "--override"),
        (("tune", "/etc/hostname", "/tmp/b", "--override", "x"), ExitCode.USAGE, "x"),
        (("tune", "host:/a", "/b"), ExitCode.USAGE, "host:/a"),
        (("changed",), ExitCode.USAGE, "volume"),
    ],
    ids=str,
)
def test_a_failure_is_one_object_too(words: tuple[str, ...], code: ExitCode, thing: str) -> None:
    found = valid("blocksync", *words)
    assert found["exit_code"] == code
    assert found["status"] == code.name.lower()
    assert found["error"]["thing"] == thing
    assert (found["error"]["guard"] is not None) == (code is ExitCode.REFUSED)


def test_a_dry_run_says_in_words_what_would_be_written(image: Image, tmp_path: Path) -> None:
    done = run("blocksync", "sync", image("source", MIB), tmp_path / "target", "--dry-run")
    assert "1 MiB would be written in 1 extents" in done.stdout


@pytest.mark.parametrize("program", ["blocksync", "xen2kvm"])
def test_h_and_v_are_understood_everywhere(program: str) -> None:
    assert run(program, "-h").stdout == run(program, "--help").stdout
    assert run(program, "sync", "-h").stdout.startswith(f"Usage: {program} sync")
    for option in ("-V", "--version"):
        assert run(program, option).stdout.startswith(f"{program} 0.")


def test_q_leaves_nothing_but_the_result_and_errors(image: Image, tmp_path: Path) -> None:
    source, digests = image("source", MIB), tmp_path / "digests"
    run("blocksync", "sync", source, tmp_path / "target", "--digests", digests)
    (tmp_path / "target").write_bytes(bytes(MIB))
    loud = run("blocksync", "sync", source, tmp_path / "target", "--digests", digests, "--dry-run")
    quiet = run("blocksync", "sync", source, tmp_path / "target", "--digests", digests, "--dry-run", "-q")
    assert loud.stderr.startswith("note: ")
    assert quiet.stderr == ""
    assert "compared" in quiet.stdout
    assert "error: " in run("blocksync", "sync", "/nowhere", "b", "-q").stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sice=1",), "is no option of `blocksync sync`\n  hint: did you mean --cache, --quiet, --size"),
        (("--size",), "blocksync sync -h"),
        (("c",), "unexpected extra argument"),
    ],
)
def test_a_mistake_says_what_to_do(words: tuple[str, ...], told: str) -> None:
    done = run("blocksync", "sync", "a", "b", *words)
    assert done.returncode == ExitCode.USAGE
    assert told in done.stderr
    assert done.stderr.count("hint") == 1


@pytest.mark.parametrize("option", ["--digests", "--only"])
def test_no_option_makes_a_file_of_the_name_dash(tmp_path: Path, option: str) -> None:
    (tmp_path / "a").write_bytes(bytes(4096))
    argv = [FOLDER / "blocksync", "sync", "a", "b", f"{option}=-"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_file_with_a_colon_in_its_name_is_one_here_behind_a_slash(tmp_path: Path) -> None:
    (tmp_path / "a:b").write_bytes(b"x" * 4096)

    def sync(source: str, target: str) -> subprocess.CompletedProcess[str]:
        argv = [FOLDER / "blocksync", "sync", source, target]
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert "./a:b" in sync("a:b", "c").stderr
    assert sync("./a:b", "./d:e").returncode == ExitCode.DONE
    assert (tmp_path / "d:e").read_bytes() == b"x" * 4096
