"""Waiting for a domain's console in a log that virtlogd rotates, that is cut, or that is endless."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync.errors import Failed, Usage
from orchestrate.kvm import console_log
from orchestrate.kvm.console_log import ConsoleLog

MIB = 2**20


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_log, "_POLL_SECONDS", 0.01)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "kvm.log"


def runs() -> bool:
    return True


def meanwhile(*acts: Callable[[], object]) -> threading.Thread:
    """Do these, one after the other, while somebody waits."""

    def work() -> None:
        for act in acts:
            time.sleep(0.1)
            act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def rotate(log: Path) -> None:
    log.rename(log.with_name(f"{log.name}.0"))


def say(log: Path, said: bytes) -> None:
    with log.open("ab") as file:
        file.write(said)


def test_only_what_this_start_said_counts(log: Path) -> None:
    say(log, b"web login: ")
    begins = log.stat().st_size
    with pytest.raises(Failed, match="did not come within"):
        ConsoleLog(log, begins).wait_for("login:", 0.1, runs)
    done = meanwhile(lambda: say(log, b"web lo"), lambda: say(log, b"gin: "))
    ConsoleLog(log, begins).wait_for("login:", 5, runs)
    done.join()


def test_a_log_that_is_rotated_while_it_is_read_loses_nothing(log: Path) -> None:
    say(log, b"BIOS\n" * 1000)
    done = meanwhile(
        lambda: say(log, b"Debian web lo"),
        lambda: rotate(log),
        # virtlogd has the old file open a moment longer.
        lambda: say(log.with_name("kvm.log.0"), b"gin"),
        lambda: say(log, b": "),
    )
    ConsoleLog(log, 5000).wait_for("web login:", 5, runs)
    done.join()


def test_a_start_whose_beginning_is_in_the_file_before_is_read_from_there(log: Path) -> None:
    say(log, b"login: of an earlier start\n" * 100)
    begins = log.stat().st_size
    say(log, b"web lo")
    rotate(log)
    say(log, b"gin: ")
    ConsoleLog(log, begins).wait_for("web login:", 1, runs)
    with pytest.raises(Failed):
        ConsoleLog(log, begins).wait_for("earlier start", 0.1, runs)


def test_a_log_that_is_cut_where_it_is_is_read_from_its_new_beginning(log: Path) -> None:
    say(log, b"x" * 100)
    done = meanwhile(lambda: log.write_bytes(b""), lambda: say(log, b"web login: "))
    ConsoleLog(log, 50).wait_for("login:", 5, runs)
    done.join()


def test_a_log_that_comes_late_is_waited_for(log: Path) -> None:
    done = meanwhile(lambda: say(log, b"web login: "))
    ConsoleLog(log, 0).wait_for("login:", 5, runs)
    done.join()


def test_what_is_not_new_is_not_read_again(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(log, b"q" * (3 * MIB))
    read = []
    pread = console_log.os.pread

    def counted(fd: int, size: int, at: int) -> bytes:
        read.append(len(said := pread(fd, size, at)))
        return said

    monkeypatch.setattr(console_log.os, "pread", counted)
    with pytest.raises(Failed):
        ConsoleLog(log, 0).wait_for("login:", 0.5, runs)
    assert sum(read) == 3 * MIB


def test_a_failure_shows_the_end_of_the_console_bounded_and_without_escapes(log: Path) -> None:
    say(
        log,
        b"\x1b[31mred\x1b[0m\n" * 100
        + b"z" * (2 * MIB)
        + b"\n\x1b]0;owned\x07Kernel panic - not syncing: x\n",
    )
    with pytest.raises(Failed, match="panicked") as failed:
        ConsoleLog(log, 0).wait_for("login:", 5, runs)
    message = str(failed.value)
    assert "\x1b" not in message
    assert "Kernel panic - not syncing: x" in message
    assert len(message) < 6000


def test_what_the_console_says_is_told_meanwhile(log: Path) -> None:
    told: list[tuple[str, float | None]] = []

    def tell(text: str, of: float | None = None) -> None:
        told.append((text, of))

    say(log, b"[ 3.2] virtio_blk\r\n")
    done = meanwhile(lambda: say(log, b"web login: "))
    ConsoleLog(log, 0).wait_for("login:", 5, runs, tell)
    done.join()
    assert told[0] == ("[ 3.2] virtio_blk", 5)


def test_a_pattern_that_is_no_expression_is_refused(log: Path) -> None:
    with pytest.raises(Usage, match="no regular expression"):
        ConsoleLog(log, 0).wait_for("login(", 1, runs)
