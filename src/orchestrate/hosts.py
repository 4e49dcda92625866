"""Where a guest's volumes are: on this machine, or on another one that is reached by a transport.

Only what every old Xen host has is asked for: its tools, by argv, and their output.
"""

import secrets
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from blocksync.errors import Failed
from blocksync.transports.failures import last_words
from blocksync.transports.interface import Channel, Transport, stands
from blocksync.voice import voice
from blocksync.wire.link import Lost
from orchestrate.standby import Standby

MISSING = 127
"""What a shell says of a command that is not there."""

# Two snapshots of one moment took 42 s on a host under software emulation.
_SECONDS = 180.0
_LARGEST_STATUS = 255
_MOST_BYTES = 64 * 1024 * 1024
_CHUNK = 1 << 20
_REACHED_AGAIN = "see that the host is up and reached again, then run the same command again"
# What the command prints goes straight on, and ends at a mark that nobody can know before; then come its
# status, what it complained, and the mark again.
_ASKED = """{ said=$({ %(command)s; } 2>&1 >&3 3>&- </dev/null); status=$?; } 3>&1
printf '%%s%%s\\n%%s\\n%%s\\n' %(mark)s "$status" "$said" %(mark)s
"""


_Machine = TypeVar("_Machine", "ThisHost", "FarHost")


class HostLost(Failed):
    """A host that cannot be reached, or whose link broke under a command: nobody knows what became of it."""

    @classmethod
    def of(cls, host: str, error: Failed) -> "HostLost":
        """The error of a pass, or of a connection, as the loss of the host that it is."""
        if isinstance(error, Lost):
            return cls(host, f"the link broke: {error.cause}", _REACHED_AGAIN)
        return cls(error.thing, error.cause, f"{error.way_out}; then run the same command again")


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

        Raises `HostLost` when the host is gone, `Failed` when it takes longer than three minutes or prints
        more than 64 MiB.
        """

    def describe(self) -> str:
        """The host's name for messages."""


def _told(
    run: "Callable[[_Machine, Sequence[str]], Done]",
) -> "Callable[[_Machine, Sequence[str]], Done]":
    """`Host.run`, each of whose commands is told of with its status and its seconds."""

    def told(host: _Machine, argv: Sequence[str]) -> Done:
        began, status = time.monotonic(), None
        try:
            done = run(host, argv)
            status = done.status
            return done
        finally:
            voice.ran(host.describe(), argv, status, time.monotonic() - began)

    return told


class ThisHost:
    """The machine that this runs on."""

    @_told
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


class FarHost:
    """A machine behind a transport. Shells there stay for the next command until `close`: a slow host needs
    most of a second to start one. Several threads may use it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._idle: Standby[_Shell] = Standby()

    @_told
    def run(self, argv: Sequence[str]) -> Done:
        """As `Host.run`."""
        shell = self._shell()
        try:
            done = shell.run(argv)
        except BaseException:
            shell.close()
            raise
        self._idle.give(shell)
        return done

    def describe(self) -> str:
        """As `Host.describe`."""
        return self._transport.describe()

    def close(self) -> None:
        """End the shells. May be called again."""
        self._idle.close()

    def _shell(self) -> "_Shell":
        if (shell := self._idle.take()) is not None:
            return shell
        # The link of those that stood may be cut; there may be a new one.
        try:
            return _Shell(self.describe(), self._transport.run(["sh"]))
        except Failed as error:
            raise HostLost.of(self.describe(), error) from error


class _Shell:
    """A shell on a far host, which runs one command after the other."""

    def __init__(self, host: str, channel: Channel) -> None:
        self._host = host
        self._channel = channel

    @property
    def stands(self) -> bool:
        """Whether it waits for a command."""
        return stands(self._channel)

    def run(self, argv: Sequence[str]) -> Done:
        """As `Host.run`; after an error the shell is of no use."""
        mark = secrets.token_hex(16)
        # A shell that has ended says so when it is read.
        with suppress(BrokenPipeError):
            self._send((_ASKED % {"command": shlex.join(argv), "mark": mark}).encode())
        output, _, told = self._read_until(mark.encode(), argv[0]).partition(mark.encode())
        status, _, complaint = told.decode(errors="replace").removesuffix(f"{mark}\n").partition("\n")
        if not (status.isascii() and status.isdigit() and len(status) < 4 and int(status) <= _LARGEST_STATUS):
            raise Failed(
                self._host, f"answers {status[:40]!r} for a status", "see what `ssh HOST sh` runs there"
            )
        return Done(int(status), output, complaint.strip())

    def close(self) -> None:
        """End it."""
        self._channel.close()

    def _send(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            rest = rest[self._channel.stdin.write(rest) or 0 :]

    def _read_until(self, mark: bytes, tool: str) -> bytes:
        """All that comes until the mark came twice."""
        output, end, deadline = bytearray(), mark + b"\n", time.monotonic() + _SECONDS
        waiting = select.poll()
        waiting.register(self._channel.stdout.fileno(), select.POLLIN)
        while not (output.endswith(end) and output.count(mark) > 1):
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                raise Failed(f"{self._host}: {tool}", f"did not end within {_SECONDS:g} s")
            piece = self._channel.stdout.read(_CHUNK)
            if not piece:
                raise self._lost(tool)
            output += piece
            if len(output) > _MOST_BYTES:
                raise Failed(f"{self._host}: {tool}", "printed more than 64 MiB")
        return bytes(output)

    def _lost(self, tool: str) -> HostLost:
        complaint = self._channel.stderr_tail().strip()
        said = f" ({last_words(complaint)})" if complaint else ""
        return HostLost(
            self._host,
            f"the link broke while {tool} ran there{said}",
            _REACHED_AGAIN,
        )
