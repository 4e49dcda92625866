"""Where a guest's volumes are: on this machine, or on another one that is reached by a transport.

Only what every old Xen host has is asked for: its tools, by argv, and their output.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from blocksync.errors import Failed
from blocksync.transports.failures import last_words
from blocksync.transports.interface import Channel, Transport

MISSING = 127
"""What a shell says of a command that is not there."""

BROKEN = 255
"""The status that a transport gives to a command whose link broke; of the commands that are run here none
ends with it.
"""

_SECONDS = 60.0
_MOST_BYTES = 64 * 1024 * 1024
_CHUNK = 1 << 20
_RESTORED = 'script=$(printf %b "$1"); shift; exec sh -c "$script" "$@"'


class HostLost(Failed):
    """A host that cannot be reached, or whose link broke under a command: nobody knows what became of it."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended: its exit status, what it printed, the end of what it complained."""

    status: int
    output: bytes
    complaint: str


class Host(Protocol):
    """A machine that commands can be run on."""

    def run(self, argv: Sequence[str]) -> Done:
        """Run `argv`; status 127 when there is no such command.

        Raises `HostLost` when the host is gone, `Failed` when it takes longer than a minute or prints more
        than 64 MiB.
        """

    def describe(self) -> str:
        """The host's name for messages."""


class ThisHost:
    """The machine that this runs on."""

    def run(self, argv: Sequence[str]) -> Done:
        """As `Host.run`."""
        try:
            done = subprocess.run(
                list(argv), capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, check=False
            )
        except FileNotFoundError:
            return Done(MISSING, b"", f"{argv[0]}: not found")
        except OSError as error:
            raise Failed(argv[0], error.strerror or "cannot be run") from error
        except subprocess.TimeoutExpired as error:
            raise Failed(" ".join(argv), f"did not end within {_SECONDS:g} s") from error
        return Done(done.returncode, done.stdout, done.stderr.decode(errors="replace").strip())

    def describe(self) -> str:
        """As `Host.describe`."""
        return "this machine"


def in_one_line(argv: Sequence[str]) -> list[str]:
    """`sh -c SCRIPT ...` without newlines in it, which a login shell on the way might not carry.

    The far shell puts them back (printf(1p), %b).
    """
    if list(argv[:2]) != ["sh", "-c"] or "\n" not in "".join(argv[2:3]):
        return list(argv)
    script = argv[2].replace("\\", "\\\\").replace("\n", "\\n")
    return ["sh", "-c", _RESTORED, "sh", script, *argv[3:]]


class FarHost:
    """A machine behind a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def run(self, argv: Sequence[str]) -> Done:
        """As `Host.run`."""
        channel = self._channel(argv)
        try:
            channel.stdin.close()
            output = self._read(channel, argv)
            done = Done(channel.wait(_SECONDS), output, channel.stderr_tail().strip())
        except TimeoutError as error:
            raise Failed(f"{self.describe()}: {argv[0]}", f"did not end within {_SECONDS:g} s") from error
        finally:
            channel.close()
        if done.status == BROKEN:
            said = f" ({last_words(done.complaint)})" if done.complaint else ""
            raise HostLost(
                self.describe(),
                f"the link broke while {argv[0]} ran there{said}",
                "see that the host is up and reached again, then run the same command again",
            )
        return done

    def _channel(self, argv: Sequence[str]) -> Channel:
        try:
            return self._transport.run(in_one_line(argv))
        except Failed as error:
            raise HostLost(error.thing, error.cause, error.way_out) from error

    def _read(self, channel: Channel, argv: Sequence[str]) -> bytes:
        output = bytearray()
        while piece := channel.stdout.read(_CHUNK):
            output += piece
            if len(output) > _MOST_BYTES:
                raise Failed(f"{self.describe()}: {argv[0]}", "printed more than 64 MiB")
        return bytes(output)

    def describe(self) -> str:
        """As `Host.describe`."""
        return self._transport.describe()
