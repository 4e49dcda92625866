"""Where a guest's volumes are: on this machine, or on another one that is reached by a transport.

Only what every old Xen host has is asked for: its tools, by argv, and their output.
"""

import io
import math
import secrets
import select
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from blocksync.errors import Failed, Usage, why
from blocksync.foreign import shown_lines
from blocksync.hosts import programs
from blocksync.hosts.idle_pool import Standby
from blocksync.transports.child import ChildChannel
from blocksync.transports.failures import last_words
from blocksync.transports.interface import Channel, RawReader, Transport, stands
from blocksync.voice import THIS_MACHINE, voice
from blocksync.wire.link import Lost

MISSING = 127
"""What a shell says of a command that is not there."""

# Two snapshots of one moment took 42 s on a host under software emulation.
_SECONDS = 180.0
_LARGEST_STATUS = 255
MOST_BYTES = 64 * 1024 * 1024
"""What a command may print, where nobody asks for less or more."""
_CHUNK = 1 << 20
_COMPLAINTS = 8
_REACHED_AGAIN = "see that the host is up and reached again, then run the same command again"
# What the command prints goes straight on, and ends at a mark that nobody can know before; then come its
# status, what it complained, and the mark again. PATH is changed in a subshell, so it does not grow; and what
# a tool says is compared with what it says in English.
_ASKED = (
    "{ said=$(PATH=$PATH:%(sbin)s; { LC_ALL=C %(command)s; } 2>&1 >&3 3>&- </dev/null); status=$?; } 3>&1\n"
    'printf \'%%s%%s\\n%%s\\n%%s\\n\' %(mark)s "$status" "$said" %(mark)s\n'
)


class HostLost(Failed):
    """A host that cannot be reached, or whose link broke under a command: nobody knows what became of it."""

    @classmethod
    def of(cls, host: str, error: Failed) -> "HostLost":
        """The error of a pass, or of a connection, as the loss of the host that it is."""
        if isinstance(error, Lost):
            return cls(host, f"the link broke: {error.cause}", _REACHED_AGAIN)
        return cls(error.thing, error.cause, f"{error.way_out}; then run the same command again")


class TooMuch(Failed):
    """A command that printed more than was asked for. It was ended."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended: its exit status, what it printed, and the last lines of what it complained as one
    line that may be shown (see blocksync.foreign).
    """

    status: int
    output: bytes
    complaint: str


class Host(Protocol):
    """A machine that commands can be run on."""

    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        """Run `argv` in English; status 127 when there is no such command.

        Raises `HostLost` when the host is gone, `Failed` when it takes longer than three minutes, `TooMuch`
        when it prints more than `most` bytes. No more than these are ever kept.
        """

    def describe(self) -> str:
        """The host's name for messages."""


class ThisHost:
    """The machine that this runs on."""

    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        """As `Host.run`."""
        return here(argv, most=most, seconds=_SECONDS, environment=programs.environment(LC_ALL="C"))

    def describe(self) -> str:
        """As `Host.describe`."""
        return THIS_MACHINE


def here(
    argv: Sequence[str],
    *,
    most: int = MOST_BYTES,
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run `argv` on this machine: as `Host.run`, within so many seconds. What is given up ends with all that
    it started.
    """
    with voice.running(THIS_MACHINE, argv) as ended:
        done = _run_here(argv, most, seconds, environment)
        ended(done.status)
    return done


def _run_here(
    argv: Sequence[str], most: int, seconds: float, environment: Mapping[str, str] | None
) -> Completed:
    deadline = time.monotonic() + seconds
    try:
        child = ChildChannel(argv, env=environment)
    except FileNotFoundError as error:
        return Completed(MISSING, b"", f"{argv[0]}: {error.strerror}")
    except (OSError, ValueError) as error:
        raise Failed(argv[0], why(error)) from error
    try:
        child.stdin.close()
        output = io.BytesIO()
        for piece in pieces(child.stdout, argv[0], most=most, seconds=seconds):
            output.write(piece)
        try:
            status = child.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise _too_slow(argv[0], seconds) from None
        return Completed(status, output.getvalue(), _complaint(child.stderr_tail()))
    except BaseException:
        child.end_all()
        raise
    finally:
        child.close()


class FarHost:
    """A machine behind a transport. Shells there stay for the next command until `close`: a slow host needs
    most of a second to start one. Several threads may use it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._idle: Standby[_Shell] = Standby()

    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        """As `Host.run`."""
        shell = self._shell()
        with voice.running(self.describe(), argv) as ended:
            try:
                done = shell.run(argv, most)
            except BaseException:
                shell.close()
                raise
            ended(done.status)
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

    def run(self, argv: Sequence[str], most: int) -> Completed:
        """As `Host.run`; after an error the shell is of no use."""
        if any("\0" in word for word in argv):
            raise Usage(repr(argv[0]), "has an argument with NUL in it", "no command can have such a one")
        mark = secrets.token_hex(16)
        # A shell that has ended says so when it is read.
        words = {"command": shlex.join(argv), "mark": mark, "sbin": ":".join(programs.BESIDES)}
        with suppress(BrokenPipeError):
            # A file's name need not be UTF-8.
            self._send((_ASKED % words).encode(errors="surrogateescape"))
        output, told = self._read_until(mark.encode(), argv[0], most)
        status, _, complaint = told.decode(errors="replace").removesuffix(f"{mark}\n").partition("\n")
        if not (status.isascii() and status.isdigit() and len(status) < 4 and int(status) <= _LARGEST_STATUS):
            raise Failed(
                self._host, f"answers {status[:40]!r} for a status", "see what `ssh HOST sh` runs there"
            )
        return Completed(int(status), output, _complaint(complaint))

    def close(self) -> None:
        """End it."""
        self._channel.close()

    def _send(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            rest = rest[self._channel.stdin.write(rest) or 0 :]

    def _read_until(self, mark: bytes, tool: str, most: int) -> tuple[bytes, bytes]:
        """What comes before the mark, and what comes after it until it came again."""
        output, end, first = bytearray(), mark + b"\n", -1
        thing = f"{self._host}: {tool}"
        coming = pieces(self._channel.stdout, thing, most=most, seconds=_SECONDS, besides=_CHUNK)
        for piece in coming:
            since = max(0, len(output) - len(mark))
            output += piece
            if first < 0:
                first = output.find(mark, since)
            if first >= 0 and output.endswith(end) and len(output) - first > len(mark) + len(end):
                if first > most:
                    raise _too_much(thing, most)
                rest = bytes(output[first + len(mark) :])
                del output[first:]
                return bytes(output), rest
        raise self._lost(tool)

    def _lost(self, tool: str) -> HostLost:
        complaint = self._channel.stderr_tail().strip()
        said = f" ({last_words(complaint)})" if complaint else ""
        return HostLost(
            self._host,
            f"the link broke while {tool} ran there{said}",
            _REACHED_AGAIN,
        )


def pieces(
    stream: RawReader,
    thing: str,
    *,
    most: int,
    seconds: float,
    silence: float = math.inf,
    besides: int = 0,
) -> Iterator[bytes]:
    """What comes on a stream of `thing`, up to its end.

    Raises Failed after so many seconds in all or of silence, and TooMuch past `most` bytes; `besides` are for
    what a shell says of the command.
    """
    deadline, count = time.monotonic() + seconds, 0
    waiting = select.poll()
    waiting.register(stream.fileno(), select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not waiting.poll(min(left, silence) * 1000):
            raise _too_slow(thing, min(seconds, silence))
        piece = stream.read(_CHUNK)
        if not piece:
            return
        count += len(piece)
        if count > most + besides:
            raise _too_much(thing, most)
        yield piece


def _too_slow(thing: str, seconds: float) -> Failed:
    return Failed(thing, f"did not end within {seconds:g} s")


def _too_much(thing: str, most: int) -> TooMuch:
    return TooMuch(thing, f"printed more than {most} bytes")


def _complaint(said: str) -> str:
    """The last lines of a command's standard error, as one."""
    return "; ".join(shown_lines(said, _COMPLAINTS))
