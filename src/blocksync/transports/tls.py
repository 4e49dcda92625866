"""TLS streams beside ssh, for links that are faster than one ssh process.

Commands run over ssh as they are. An agent's conversation begins there too, and moves to the streams if it
can (`blocksync.remote.tls_upgrade`); where it cannot, it stays, and that is said once.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from blocksync.transports.interface import Channel, Closes, Control, RawReader, RawWriter

# Two each way fill two cores, one at either end, and a link that one TCP connection does not.
STREAMS = 2


@dataclass(slots=True)
class Tls:
    """`control`, with conversations over `streams` TLS streams each way to `port` of the host (0: one that is
    free there). `notice` is told, once, why it is not TLS when it is not.
    """

    control: Control
    notice: Callable[[str], None]
    streams: int = STREAMS
    port: int = 0
    _plain: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, argv: Sequence[str]) -> Channel:
        channel = self.control.run(argv)
        return channel if self._plain else TlsChannel(self, channel)

    def close(self) -> None:
        self.control.close()

    def describe(self) -> str:
        return self.control.describe() if self._plain else f"TLS beside {self.control.describe()}"

    def address(self) -> str | None:
        """Where the streams lead; None when the way is through a proxy."""
        return self.control.address()

    def give_up(self, why: str) -> None:
        """Say that all goes over ssh, and why; further conversations do not try again."""
        # Several may find it out at the same time.
        with self._lock:
            told, self._plain = self._plain, True
        if not told:
            self.notice(f"no TLS streams, all goes over {self.control.describe()}: {why}")


class TlsChannel:
    """A command over ssh whose conversation may move to streams of `tls`; they end with it."""

    def __init__(self, tls: Tls, channel: Channel) -> None:
        self.tls = tls
        self._channel = channel
        self._streams = contextlib.ExitStack()

    @property
    def stdin(self) -> RawWriter:
        return self._channel.stdin

    @property
    def stdout(self) -> RawReader:
        return self._channel.stdout

    def keep(self, streams: Closes) -> None:
        """What is to be closed with the channel."""
        self._streams.callback(streams.close)

    def close(self) -> None:
        self._streams.close()
        self._channel.close()

    def wait(self, timeout: float | None) -> int:
        return self._channel.wait(timeout)

    def stderr_tail(self) -> str:
        return self._channel.stderr_tail()
