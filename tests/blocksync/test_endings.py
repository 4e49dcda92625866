"""However a command ends, and whatever became of its streams: no traceback, and the exit code of what was
done.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync.errors import ExitCode

MIB = 2**20
Image = Callable[[str, int], Path]
BLOCKSYNC = Path(sys.executable).parent / "blocksync"
FAULT = """
import sys
from blocksync.commands import entry as cli, outcome
def broken(): raise {raised}
outcome.conclude("blocksync", sys.argv[1:], broken)
"""


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `blocksync` is ours; what was written on standard error is kept."""
    script = f'blocksync() {{ "{BLOCKSYNC}" "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        (">&-", ExitCode.DONE),
        ("2>&-", ExitCode.DONE),
        (">&- 2>&-", ExitCode.DONE),
        ("<&- >&- 2>&-", ExitCode.DONE),
        ("2>/dev/full", ExitCode.DONE),
        (">/dev/full", ExitCode.FAILED),
        ("--json >/dev/full", ExitCode.FAILED),
        ("--json >&-", ExitCode.DONE),
        ("--log-json 2>/dev/full >&-", ExitCode.DONE),
    ],
)
def test_a_pass_is_made_and_ends_with_its_exit_code_whatever_its_streams_are(
    image: Image, tmp_path: Path, redirection: str, code: ExitCode
) -> None:
    source, target = image("source", MIB), tmp_path / "target"
    done = shell(f"blocksync sync {source} {target} {redirection}")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("pipe", ["| true", "2>&1 | true", "--json | true", "--log-json 2>&1 | true"])
def test_a_pass_is_made_although_the_reader_of_its_output_left(
    image: Image, tmp_path: Path, pipe: str
) -> None:
    source, target = image("source", 4 * MIB), tmp_path / "target"
    done = shell(f"blocksync sync {source} {target} --bwlimit 16MiB {pipe}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == ExitCode.DONE
    assert done.stderr == ""
    assert target.read_bytes() == source.read_bytes()


def test_the_disk_never_gets_the_number_of_a_closed_standard_stream(tmp_path: Path) -> None:
    code = "from blocksync.commands import streams; import os; streams.make_lasting(); "
    code += "print(os.open('/dev/null', 0))"
    done = shell(
        f"{sys.executable} -c \"{code}; open('{tmp_path}/fd', 'w').write(str(os.open('.', 0)))\" <&- >&- 2>&-"
    )
    assert done.returncode == 0
    assert int((tmp_path / "fd").read_text()) > 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp037"])
def test_a_name_that_the_terminal_s_encoding_lacks_is_shown_somehow(tmp_path: Path, encoding: str) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xe2\x82\xac"
    done = subprocess.run(
        [BLOCKSYNC, "sync", name, tmp_path / "b"],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == ExitCode.USAGE
    assert "does not exist" in done.stderr.decode(encoding, errors="replace")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("options", [(), ("--json", "--log-json")], ids=["plain", "json"])
def test_a_signal_while_the_command_is_loaded_is_an_interruption(
    tmp_path: Path, number: signal.Signals, options: tuple[str, ...]
) -> None:
    # It comes with the first module of ours, before any that could say what it means.
    # Under nohup SIGHUP is ignored, and would stay so.
    heed = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    code = f"{heed}; import blocksync.start; os.kill(os.getpid(), {int(number)}); blocksync.start.main()"
    words = ["sync", str(tmp_path / "a"), str(tmp_path / "b"), *options]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in done.stderr
    if options:
        (line,) = done.stderr.splitlines()
        assert json.loads(line)["event"] == "error"
        assert json.loads(done.stdout)["status"] == "interrupted"
    else:
        assert f"go on with: blocksync sync {tmp_path}/a" in done.stderr


def test_a_signal_that_nohup_has_ignored_stays_ignored(image: Image, tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "import blocksync.start, os; os.kill(os.getpid(), signal.SIGHUP); blocksync.start.main()"
    )
    words = ["sync", image("source", MIB), tmp_path / "target"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.DONE


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("ValueError('a\\x1b[31m\\nb')", "this is a fault of ours: ValueError: a?[31m?b"),
        ("RecursionError('deep')", "this is a fault of ours: RecursionError: deep"),
        ("OSError(28, 'No space left on device', '/tmp/x')", "/tmp/x: No space left on device"),
        ("UnicodeEncodeError('ascii', '\\udcff', 0, 1, 'x')", "this is a fault of ours: UnicodeEncodeError"),
        ("ExceptionGroup('two', [ValueError(1)])", "this is a fault of ours: ExceptionGroup"),
        ("GeneratorExit()", "this is a fault of ours: GeneratorExit"),
    ],
)
def test_what_nobody_foresaw_is_one_line_and_its_traceback_is_in_a_file(
    tmp_path: Path, raised: str, words: str
) -> None:
    argv = [sys.executable, "-c", FAULT.format(raised=raised), "--json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == ExitCode.FAILED
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    (kept,) = tmp_path.iterdir()
    assert str(kept) in done.stderr
    assert "Traceback" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    assert json.loads(done.stdout)["status"] == "failed"


def test_the_traceback_is_shown_to_whoever_asks_for_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XEN2KVM_TRACEBACK": "1"}
    argv = [sys.executable, "-c", FAULT.format(raised="ValueError(1)")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert "Traceback" in done.stderr


def test_a_thread_that_fails_says_it_in_one_line(tmp_path: Path) -> None:
    code = FAULT.format(raised="ValueError(1)").replace(
        "raise ValueError(1)",
        "import threading; each = threading.Thread(target=lambda: 1 / 0); each.start(); each.join()",
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert "fault of ours: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr


def test_warnings_of_libraries_are_no_lines_among_those_of_log_json() -> None:
    code = FAULT.format(raised="ValueError(1)").replace(
        "raise ValueError(1)", "import warnings; warnings.warn('old', UserWarning)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--log-json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
