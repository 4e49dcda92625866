"""What an operator sees: on a terminal that is redrawn, on one that is not, and as JSON lines."""

import io
import json
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from blocksync.display import display as displays
from blocksync.display.display import JsonLines, PlainLines
from blocksync.progress import Progress

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pexpect.ANSI import ANSI

ROWS, COLUMNS = 24, 100
MIB = 2**20

# Two passes within a step that lasts, a note meanwhile, a step with somebody else's text, and a question.
SHOWN = """
import sys, time
from blocksync.display.display import display
from blocksync.progress import Progress

def moment(seconds, share, total):
    at = int(share * total)
    return Progress(phase="copy", bytes_done=at // 2, bytes_looked_at=at, bytes_total=total, bytes_changed=at,
                    bytes_written=at, bytes_read=at, bytes_moved=at, seconds=seconds)

with display() as shown:
    print("before", file=sys.stderr)
    shown.begins("last pass")
    one, other = shown.task("xvda1"), shown.task("[bold]xvda2")
    for tick in range(23):
        one(moment(tick / 10, tick / 30, 2**30))
        other(moment(tick / 10, tick / 40, 2**31))
        if tick == 12:
            print("note: something", file=sys.stderr)
        time.sleep(0.1)
    one(Progress(phase="flush", bytes_done=2**30, bytes_looked_at=2**30, bytes_total=2**30, bytes_changed=0,
                 bytes_written=0, bytes_read=0, bytes_moved=0, seconds=2.4))
    shown.ends("last pass", 2.4)
    shown.begins("boot")
    shown.tells("[ 3.2] virtio \\x1b]0;owned\\x07 [red]x\\nnot a line", 300)
    with shown.aside("reaching web1"):
        time.sleep(1)
        input("QUESTION")
    time.sleep(1.5)
    shown.ends("boot", 2.5)
print("after", file=sys.stderr)
"""


class Screen:
    """What a child shows on a pseudo-terminal of a kind. `shots` are its lines each time it has written."""

    def __init__(self, kind: str, folder: Path) -> None:
        program = folder / "shown.py"
        program.write_text(SHOWN)
        environment = {"TERM": kind, "PATH": "/usr/bin:/bin"}
        self.raw = b""
        self.shots: list[list[str]] = []
        terminal = ANSI(ROWS, COLUMNS)
        child: pexpect.spawn[bytes] = pexpect.spawn(
            sys.executable, [str(program)], env=environment, dimensions=(ROWS, COLUMNS), timeout=20
        )
        with suppress(pexpect.EOF):
            while said := child.read_nonblocking(65536, 20):
                self.raw += said
                terminal.write(said.decode())
                self.shots.append([line.rstrip() for line in str(terminal).split("\n") if line.strip()])
                if said.endswith(b"QUESTION"):
                    child.sendline("an answer")

    @property
    def end(self) -> list[str]:
        return self.shots[-1]

    def with_line(self, start: str) -> list[list[str]]:
        return [lines for lines in self.shots if any(line.startswith(start) for line in lines)]


def test_bars_and_steps_share_the_terminal_and_overwrite_nothing(tmp_path: Path) -> None:
    screen = Screen("xterm", tmp_path)
    before, note, first, second, step = screen.with_line("last pass: 2 s")[-1]
    assert (before, note) == ("before", "note: something")
    assert first.startswith("xvda1 ")
    assert second.startswith("[bold]xvda2 ")
    assert "durable)" in first
    assert "to go" in second
    assert step == "last pass: 2 s"
    # A finished step scrolls above the bars of what is not over.
    lines = screen.with_line("    2.40 s  last pass")[0]
    assert lines.index("    2.40 s  last pass") == 2
    # What is asked stands alone, and is not drawn over.
    asked = [lines for lines in screen.shots if lines[-1].endswith("QUESTION")]
    assert asked
    assert not [line for line in asked[-1] if line.startswith(("boot", "[bold]xvda2"))]
    told = "[ 3.2] virtio ?]0;owned? [red]x?not a line"
    assert any(
        re.fullmatch(rf"boot: [2-9] of 300 s \| {re.escape(told)}", line)
        for line in screen.with_line("boot")[-1]
    )
    # At the end everything that was printed is there once, and nothing else.
    assert [line.split()[0] for line in screen.end] == [
        "before",
        "note:",
        "2.40",
        "QUESTIONan",
        "2.50",
        "[bold]xvda2",
        "after",
    ]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(tmp_path: Path) -> None:
    screen = Screen("dumb", tmp_path)
    assert b"\x1b" not in screen.raw
    lines = screen.end
    assert sum(line.startswith("xvda1: copy ") for line in lines) == 1
    assert any(line.startswith("last pass: 2 s") for line in lines)
    assert any("boot: 2 of 300 s | [ 3.2] virtio ?]0;owned?" in line for line in lines)
    assert lines[-1] == "after"


def moment(seconds: float, looked_at: int, total: int = 100 * MIB) -> Progress:
    return Progress(
        phase="copy",
        bytes_done=0,
        bytes_looked_at=looked_at,
        bytes_total=total,
        bytes_changed=0,
        bytes_written=0,
        bytes_read=looked_at,
        bytes_moved=looked_at,
        seconds=seconds,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time that the displays go by, in seconds since the test began."""
    now = [0.0]
    monkeypatch.setattr(displays, "_now", lambda: 1000.0 + now[0])

    def to(seconds: float) -> None:
        now[0] = seconds

    return to


def test_what_lasts_is_told_at_growing_intervals(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    shown = PlainLines(stream)
    shown.begins("stop")
    shown.tells("waiting", 120)
    for second in range(1, 190):
        clock(second)
        shown._look()
    at = [int(line.split()[1]) for line in stream.getvalue().splitlines()]
    assert at == [2, 5, 10, 20, 60, 120, 180]


def test_a_pass_that_says_nothing_still_shows_life(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    shown = PlainLines(stream)
    report = shown.task("sync")
    report(moment(0, 0))
    clock(0.5)
    report(moment(0.5, MIB))
    for quarter in range(3, 60):
        clock(quarter / 4)
        shown._look()
    lines = stream.getvalue().splitlines()
    # Within two seconds, and then each five.
    assert len(lines) == 3
    rates = [line.split(", ")[1] for line in lines]
    assert rates[0] != rates[-1]


def test_json_lines_tell_of_steps_and_of_passes_that_say_nothing(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    shown = JsonLines(stream)
    shown.begins("last pass")
    report = shown.task("xvda1")
    report(moment(0, 0))
    for second in range(1, 6):
        clock(second)
        shown._look()
    report(moment(5.5, 50 * MIB))
    shown.ends("last pass", 5.6, silent=True)
    shown.begins("boot")
    shown.breaks("boot")
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["format"] for line in found} == {1}
    steps = [(line["step"], line["status"]) for line in found if line["event"] == "step"]
    assert steps == [
        ("last pass", "begun"),
        ("last pass", "running"),
        ("last pass", "running"),
        ("last pass", "done"),
        ("boot", "begun"),
        ("boot", "failed"),
    ]
    seconds = [line["seconds"] for line in found if line["event"] == "progress"]
    assert seconds == [0, 1, 2, 3, 4, 5]


def test_a_stream_that_nobody_reads_ends_no_pass() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    shown = JsonLines(Closed())
    shown.task("sync")(moment(0, 0))
    shown.begins("boot")
    shown.ends("boot", 1.0)
