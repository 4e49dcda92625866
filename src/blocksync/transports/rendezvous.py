"""The words by which two ends agree, over ssh, on TLS streams beside it; each is one line of JSON.

    near  Offer    my certificate, so many streams each way, and a port if only one is open
    far   Answer   my certificate and the port where I listen
    near  Choice   whether all my streams are up
    far   Verdict  whether all of yours came; if not, the command goes on over ssh itself

Lines are bounded and read byte by byte: what follows them belongs to the command.
"""

import os
import select
import time
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from blocksync.errors import Failed

# A host's shell may print on its own; our lines are told from that by how they begin.
_MAGIC = b"blocksync-tls 1 "
_LINE_BYTES = 8192

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Streams = Annotated[int, msgspec.Meta(ge=1, le=16)]
Certificate = Annotated[bytes, msgspec.Meta(max_length=2048)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offer:
    certificate: Certificate
    streams: Streams
    port: Port


@dataclass(frozen=True, slots=True)
class Answer:
    certificate: Certificate
    port: Port


@dataclass(frozen=True, slots=True)
class Choice:
    tls: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    tls: bool


def say(descriptor: int, word: Offer | Answer | Choice | Verdict) -> None:
    """Write a word. Raises Failed when the other end is gone."""
    rest = memoryview(_MAGIC + msgspec.json.encode(word) + b"\n")
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise Failed("tls rendezvous", f"the other end is gone: {error.strerror}") from error


def hear(descriptor: int, kind: type[T], seconds: float) -> T:
    """Read a word of this kind. Raises Failed for anything else, for the end, and when time is over."""
    line = _line(descriptor, time.monotonic() + seconds)
    if not line.startswith(_MAGIC):
        raise Failed("tls rendezvous", f"the other end says {line[:80]!r}")
    try:
        return msgspec.json.decode(line.removeprefix(_MAGIC), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Failed("tls rendezvous", f"the other end says {line[:80]!r}: {error}") from error


def _line(descriptor: int, until: float) -> bytes:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    line = bytearray()
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise Failed("tls rendezvous", "no answer in time")
        piece = os.read(descriptor, 1)
        if not piece or len(line) > _LINE_BYTES:
            raise Failed(
                "tls rendezvous", "the other end has no answer" if not piece else "too long an answer"
            )
        line += piece
    return bytes(line)
