"""TLS streams beside ssh, for links that are faster than one ssh process.

ssh checks the host, carries the agreement (`rendezvous`) and watches the link; the bytes go over several TLS
streams to a port of the host. What cannot be reached that way is reached over ssh, and it is said.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import FileIO

from blocksync.errors import Failed
from blocksync.transports.certificates import make_identity
from blocksync.transports.child import widen
from blocksync.transports.failures import last_words
from blocksync.transports.interface import Channel, Control
from blocksync.transports.rendezvous import Answer, Choice, Offer, Verdict, hear, say
from blocksync.transports.streams import Streams, connect
from blocksync.transports.stripes import Gather, Scatter

# Two each way fill two cores, one at either end, and a link that one TCP connection does not.
STREAMS = 2
_REACH_SECONDS = 3.0
# A Python on an old host takes its time to start.
_ANSWER_SECONDS = 20.0
_JOIN_SECONDS = 2.0
_BROKEN = 255


@dataclass(slots=True)
class Tls:
    """`control`, with the bytes of its commands over `streams` TLS streams each way to `port` of the host (0:
    one that is free there). `relay` is the command of the far half; `notice` is told, once, why it is not
    TLS when it is not.
    """

    control: Control
    notice: Callable[[str], None]
    relay: tuple[str, ...] = ("blocksync", "relay")
    streams: int = STREAMS
    port: int = 0
    _plain: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, argv: Sequence[str]) -> Channel:
        address = None if self._plain else self.control.address()
        if self._plain:
            return self.control.run(argv)
        if address is None:
            return self._without("it is behind a proxy or jump host", argv)
        channel = self.control.run([*self.relay, "--", *argv])
        try:
            return self._meet(channel, address)
        except Failed as error:
            said = last_words(channel.stderr_tail())
            channel.close()
            return self._without(f"{error.cause} ({said})" if said else error.cause, argv)

    def put(self, content: bytes, path: str, mode: int) -> None:
        self.control.put(content, path, mode)

    def close(self) -> None:
        self.control.close()

    def describe(self) -> str:
        return self.control.describe() if self._plain else f"TLS beside {self.control.describe()}"

    def _without(self, why: str, argv: Sequence[str]) -> Channel:
        self._say(why)
        return self.control.run(argv)

    def _say(self, why: str) -> None:
        # Several commands may find it out at the same time.
        with self._lock:
            told, self._plain = self._plain, True
        if not told:
            self.notice(f"no TLS streams, all goes over {self.control.describe()}: {why}")

    def _meet(self, channel: Channel, address: str) -> Channel:
        identity = make_identity()
        say(channel.stdin.fileno(), Offer(identity.certificate, self.streams, self.port))
        answer = hear(channel.stdout.fileno(), Answer, _ANSWER_SECONDS)
        why = "the streams did not arrive there"
        streams = None
        try:
            streams = connect(
                (address, answer.port),
                identity,
                answer.certificate,
                each_way=self.streams,
                seconds=_REACH_SECONDS,
            )
        except (OSError, Failed) as error:
            why = f"{address} port {answer.port}: {error.cause if isinstance(error, Failed) else error}"
        say(channel.stdin.fileno(), Choice(streams is not None))
        if hear(channel.stdout.fileno(), Verdict, _ANSWER_SECONDS).tls and streams is not None:
            return TlsChannel(channel, streams)
        if streams is not None:
            streams.close()
        self._say(why)
        return channel


class TlsChannel:
    """A command whose streams go over TLS and whose words and status go over ssh."""

    def __init__(self, control: Channel, streams: Streams) -> None:
        self._control = control
        self._streams = streams
        stdin, near_stdin = os.pipe()
        near_stdout, stdout = os.pipe()
        widen(stdin)
        widen(stdout)
        self.stdin = FileIO(near_stdin, "wb")
        self.stdout = FileIO(near_stdout, "rb")
        self._up = Scatter(stdin, streams.up)
        self._down = Gather(stdout, streams.down)
        self._up.start()
        self._down.start()
        threading.Thread(target=self._end_with_ssh, name="tls control", daemon=True).start()

    def close(self) -> None:
        for end in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                end.close()
        self._up.cut()
        self._down.cut()
        self._control.close()
        self._up.join(_JOIN_SECONDS)
        self._down.join(_JOIN_SECONDS)
        self._streams.close()

    def wait(self, timeout: float | None) -> int:
        status = self._control.wait(timeout)
        return status if self._down.error is None else _BROKEN

    def stderr_tail(self) -> str:
        return self._control.stderr_tail()

    def _end_with_ssh(self) -> None:
        # It is ssh that notices when the link or the host is gone.
        if self._control.wait(None) == _BROKEN:
            self._up.cut()
            self._down.cut()
