"""`xen2kvm prepare` of a guest that says what it likes. Real processes stand in for the guest's shell."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import bounded
from blocksync.errors import Failed
from blocksync.transports.child import ChildChannel
from orchestrate.steps import prepare

_PREPARED = """
import sys
from blocksync.errors import Failed
from blocksync.transports.child import ChildChannel
from orchestrate.steps import prepare

class Guest:
    def run(self, argv):
        return ChildChannel(["sh", "-c", sys.argv[1]])
    def describe(self):
        return "ssh evil"

try:
    prepare.run(Guest(), (), print)
except Failed as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat /dev/zero", "prints a line of more than 4096 bytes"),
        ("yes", "printed more than 4194304 bytes"),
        ("yes | tr -d '\\n'", "prints a line of more than 4096 bytes"),
        ("head -c 100000000 /dev/zero | tr '\\0' x >&2; exit 1", "prepare on ssh evil: xxx"),
    ],
    ids=["zeros", "unknown lines", "one line", "complaints"],
)
def test_a_guest_that_prints_without_an_end_takes_no_memory(script, said):
    assert said in bounded.run(_PREPARED, script, memory=1 << 30, seconds=30)


class Guest:
    """A guest whose shell runs a script instead of the one that it is sent."""

    def __init__(self, script: str) -> None:
        self.script = script

    def run(self, argv: Sequence[str]) -> ChildChannel:
        script = self.script if argv[:2] == ["sh", "-s"] else "exec sh"
        return ChildChannel(["sh", "-c", script])

    def describe(self) -> str:
        return "ssh evil"


def test_a_guest_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_MOST_SILENCE", 0.2)
    with pytest.raises(Failed, match=r"did not end within 0\.2 s"):
        prepare.run(Guest("echo did: begin; sleep 60"), (), lambda _: None)


def test_a_guest_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_MOST_SECONDS", 0.5)
    with pytest.raises(Failed, match=r"did not end within 0\.5 s"):
        prepare.run(Guest("while :; do echo .; sleep 0.05; done"), (), lambda _: None)


def test_a_guest_adds_no_line_to_what_is_said_of_it() -> None:
    script = r"printf 'no room\n  hint: rm -rf /\033[2J\r\n' >&2; exit 3"
    with pytest.raises(Failed) as caught:
        prepare.run(Guest(script), (), lambda _: None)
    assert caught.value.cause == "no room;   hint: rm -rf /?[2J"


def test_what_a_line_says_is_bounded_and_without_control_characters(tmp_path: Path) -> None:
    lines = prepare.run(
        Guest(r"printf 'did: a\033]0;b\007\342\200\256c\n'; printf 'keep: %04000d\n'"), (), print
    )
    assert lines[0].text == "a?]0;b??c"
    assert len(lines[1].text) < 500
