"""A transport whose first command is on its way before anybody asks for it."""

import threading
from collections.abc import Sequence

from blocksync.transports.interface import Channel, Transport


class Early:
    """`transport`, on which `argv` is started at once, in a thread: connecting takes longer than everything
    that this side does meanwhile. The first `run(argv)` gives its channel, or raises what starting it raised.
    """

    def __init__(self, transport: Transport, argv: Sequence[str]) -> None:
        self._transport = transport
        self._argv = tuple(argv)
        self._channel: Channel | None = None
        self._error: BaseException | None = None
        self._taking = threading.Lock()
        self._thread: threading.Thread | None = threading.Thread(target=self._start, daemon=True)
        self._thread.start()

    def run(self, argv: Sequence[str]) -> Channel:
        channel = self._take() if tuple(argv) == self._argv else None
        if channel is not None:
            return channel
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._transport.run(argv)

    def close(self) -> None:
        channel = self._take()
        if channel is not None:
            channel.close()
        self._transport.close()

    def describe(self) -> str:
        return self._transport.describe()

    def _start(self) -> None:
        try:
            self._channel = self._transport.run(self._argv)
        except BaseException as error:
            self._error = error

    def _take(self) -> Channel | None:
        """The channel once it is there, to the first who asks; None when it could not be had."""
        with self._taking:
            if self._thread is not None:
                self._thread.join()
                self._thread = None
            channel, self._channel = self._channel, None
            return channel
