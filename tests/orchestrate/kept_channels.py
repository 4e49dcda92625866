"""A far host that is this machine: a transport which keeps what it started, and can be cut."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from blocksync.transports.child import ChildChannel


class KeptChannels:
    """Each command is a child process here."""

    def __init__(self) -> None:
        self.channels: list[ChildChannel] = []

    def run(self, argv: Sequence[str]) -> ChildChannel:
        self.channels.append(ChildChannel(argv))
        return self.channels[-1]

    def describe(self) -> str:
        return "the far host"

    def cut(self) -> None:
        """Kill what was started, and wait for its end."""
        for channel in self.channels:
            with suppress(ProcessLookupError):
                os.killpg(channel._process.pid, signal.SIGKILL)
            channel.wait(10)
