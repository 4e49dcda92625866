"""A command that is started before it is asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from blocksync.errors import Failed
from blocksync.transports.child import ChildChannel
from blocksync.transports.early import Early
from blocksync.transports.interface import Channel
from local_transport import Local
from patience import wait_for

Exchange = Callable[[Channel, bytes], bytes]


class Unreachable(Local):
    def run(self, argv: Sequence[str]) -> ChildChannel:
        raise Failed("ssh somewhere", "no answer in time")


def test_it_runs_before_it_is_asked_for_and_its_channel_is_given_once(
    tmp_path: Path, exchange: Exchange
) -> None:
    words = ("sh", "-c", f"echo started >> {tmp_path}/log; exec cat")
    early = Early(Local(), words)
    wait_for((tmp_path / "log").exists)
    first, second, other = early.run(words), early.run(words), early.run(("echo", "other"))
    assert exchange(first, b"one") == b"one"
    assert exchange(second, b"two") == b"two"
    assert exchange(other, b"") == b"other\n"
    assert (tmp_path / "log").read_text() == "started\n" * 2
    for channel in (first, second, other):
        channel.close()
    early.close()


def test_what_went_wrong_is_told_to_who_asks() -> None:
    early = Early(Unreachable(), ("true",))
    with pytest.raises(Failed, match="no answer in time"):
        early.run(("true",))
    early.close()


def test_a_command_that_nobody_asked_for_ends_with_the_transport(tmp_path: Path) -> None:
    words = ("sh", "-c", f"cat > /dev/null; echo ended > {tmp_path}/ended")
    Early(Local(), words).close()
    assert (tmp_path / "ended").read_text() == "ended\n"
    Early(Unreachable(), ("true",)).close()
