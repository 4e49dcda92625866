"""A machine whose guest says too much: a shell stands in for QEMU, and prints what a guest may."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync.errors import Failed
from orchestrate.kvm import machine as machines
from orchestrate.kvm.machine import Machine, MachineSpec

MIB = 2**20


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Machine]:
    """A machine whose console is what a shell command prints."""

    def make(command: str) -> Machine:
        monkeypatch.setattr(machines, "qemu_command", lambda spec: ["sh", "-c", command])
        return Machine(MachineSpec(tmp_path / "disk"), tmp_path / "console.log")

    return make


def test_a_guest_without_line_ends_makes_no_long_error(guest: Callable[[str], Machine]) -> None:
    with guest("head -c 4800000 /dev/zero | tr '\\0' z; sleep 60") as machine:
        with pytest.raises(Failed) as failed:
            machine.wait_for("login:", 3)
        assert len(str(failed.value)) < 2000
        assert machine.log.stat().st_size == 4800000


def test_many_long_lines_make_an_error_of_bounded_size(guest: Callable[[str], Machine]) -> None:
    line = "0123456789" * 100
    with guest(f"yes {line} | head -n 1000; printf '\\033[31mred'; sleep 60") as machine:
        with pytest.raises(Failed) as failed:
            machine.wait_for("login:", 2)
        shown = str(failed.value).split("last lines of the console:\n")[1].splitlines()
        assert len(machine.last_lines()) == 20
        assert all(len(line) < 420 for line in shown[:20])
        assert machine.last_lines()[-1] == "red"


def test_what_the_guest_says_and_how_long_it_may_take_is_told(guest: Callable[[str], Machine]) -> None:
    told: list[tuple[str, float | None]] = []

    def tell(text: str, of: float | None = None) -> None:
        told.append((text, of))

    with guest("printf '[ 3.2] virtio\\n'; sleep 1; printf 'web login: '; sleep 60") as machine:
        seen = machine.wait_for("login:", 20, tell=tell)
    assert seen.text == "login:"
    assert ("[ 3.2] virtio", 20) in told


def test_an_end_is_told_from_a_wait_that_was_too_long(guest: Callable[[str], Machine]) -> None:
    with guest("printf bye") as machine, pytest.raises(Failed, match="QEMU ended before it came"):
        machine.wait_for("login:", 20)
    with guest("sleep 60") as machine, pytest.raises(Failed, match="did not power off within"):
        machine.wait_for_end(0.2)
    with guest("printf bye") as machine:
        assert machine.wait_for_end(20) < 20
        assert machine.last_lines() == ["bye"]
