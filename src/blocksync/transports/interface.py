"""What the wire asks of a transport: a command's streams on another host."""

from collections.abc import Sequence
from typing import Protocol

BROKEN = 255
"""The exit status of a command whose transport broke."""


class RawWriter(Protocol):
    """An unbuffered binary stream to write to; a write may be short."""

    def fileno(self) -> int: ...
    def write(self, data: bytes | bytearray | memoryview, /) -> int | None: ...
    def close(self) -> None: ...


class RawReader(Protocol):
    """An unbuffered binary stream to read from; a read may be short, b"" and 0 mean the end."""

    def fileno(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes | None: ...
    def readinto(self, buffer: bytearray | memoryview, /) -> int | None: ...
    def close(self) -> None: ...


class Closes(Protocol):
    """Something that is to be closed."""

    def close(self) -> None: ...


class Channel(Protocol):
    """A command that runs on a host. Both streams are real descriptors: they can be polled, spliced and
    set non-blocking. Closing `stdin` sends the end of the stream; `stdout` stays readable after it.

    A link that dies is the end of `stdout` and a status of 255, at the latest 30 s after it died.
    """

    @property
    def stdin(self) -> RawWriter: ...
    @property
    def stdout(self) -> RawReader: ...

    def close(self) -> None:
        """End the command if it still runs and release everything. Never raises; may be called again."""

    def wait(self, timeout: float | None) -> int:
        """The exit status as a shell says it: 128+n for signal n, 255 when the transport broke.

        Raises TimeoutError when the command still runs after `timeout` seconds.
        """

    def stderr_tail(self) -> str:
        """The last words on standard error, at most 64 KiB. They come from the other host: do not trust
        them on a terminal unescaped."""


def stands(channel: Channel) -> bool:
    """Whether the command still runs, as far as is known here."""
    try:
        channel.wait(0)
    except TimeoutError:
        return True
    return False


class Transport(Protocol):
    """A host that commands can be run on.

    `run` raises Usage for text that cannot be sent safely and Failed, with thing, cause and way
    out, when the host cannot be reached or trusted.
    """

    def run(self, argv: Sequence[str]) -> Channel:
        """Start `argv` there, as the host's own login shell would; no word is expanded by that shell."""

    def close(self) -> None:
        """End the connection and what still runs on it. Never raises; may be called again."""

    def describe(self) -> str:
        """How the host is reached, for people."""


class Control(Transport, Protocol):
    """A transport that can also say where the host is, so that streams beside it find the way."""

    def address(self) -> str | None:
        """A name or address that can be connected to from here; None when the way is through a proxy."""
