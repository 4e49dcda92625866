"""Before the streams of a pass: messages said and awaited in turn, small reads, lists of extents."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from blocksync.wire.extent_list import Pair
from blocksync.wire.frames import GREETING, MOST_EXTENTS, NO_TERMS, Header, Kind, Violation
from blocksync.wire.link import Carrier, Link
from blocksync.wire.messages import (
    PROTOCOL,
    Answer,
    AnyMessage,
    Arrived,
    Connected,
    Done,
    FarDevice,
    Hello,
    Job,
    Message,
    Offer,
    Problem,
    Ready,
    Start,
    Totals,
    decode,
    encode,
)

BOOT = Path("/proc/sys/kernel/random/boot_id")

_PAIR = struct.Struct(">QQ")
_KINDS: dict[type[Any], Kind] = {
    Hello: Kind.HELLO,
    Offer: Kind.OFFER,
    Answer: Kind.ANSWER,
    Connected: Kind.CONNECTED,
    Arrived: Kind.ARRIVED,
    Job: Kind.JOB,
    FarDevice: Kind.DEVICE,
    Start: Kind.START,
    Ready: Kind.READY,
    Totals: Kind.TOTALS,
    Done: Kind.DONE,
    Problem: Kind.ERROR,
}

Heed = Callable[[Header], None]


def say(link: Link, message: Message) -> None:
    link.send(_KINDS[type(message)], encode(message))


def say_last(link: Link, message: Message, carrier: Carrier) -> None:
    """Say it as the last thing before what is sent goes over `carrier`."""
    link.send_last(carrier, _KINDS[type(message)], encode(message))


def expect(link: Link, kind: type[AnyMessage], meanwhile: dict[Kind, Heed] | None = None) -> AnyMessage:
    """The next message, which must be of this kind; frames in `meanwhile` are heeded before it.

    Raises what the other end says went wrong, Violation for anything else, Lost.
    """
    return decode(link.payload(await_frame(link, _KINDS[kind], meanwhile)), kind)


def await_frame(link: Link, kind: Kind, meanwhile: dict[Kind, Heed] | None = None) -> Header:
    """The header of the next frame, which must be of this kind; otherwise as `expect`."""
    heeded = {Kind.ALIVE: _pass_over, **(meanwhile or {})}
    while (header := link.receive(NO_TERMS)).kind is not kind:
        if header.kind is Kind.ERROR:
            raise decode(link.payload(header), Problem).error(link.peer)
        if header.kind not in heeded:
            raise Violation(f"a frame {header.kind.name} instead of {kind.name}")
        heeded[header.kind](header)
    return header


def await_greeting(link: Link) -> None:
    greeting = bytearray(len(GREETING))
    link.take(memoryview(greeting))
    if greeting != GREETING:
        raise Violation("it does not begin with a greeting")


def await_hello(link: Link) -> Hello:
    """The other end's Hello. Raises Violation when it speaks another protocol."""
    hello = expect(link, Hello)
    if hello.protocol != PROTOCOL:
        raise Violation(f"it speaks protocol {hello.protocol}, not {PROTOCOL}")
    return hello


def boot() -> str:
    """What tells one running kernel from every other; empty when it does not say."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def send_extents(link: Link, extents: Sequence[Pair]) -> None:
    for at in range(0, len(extents), MOST_EXTENTS):
        some = extents[at : at + MOST_EXTENTS]
        link.send(Kind.EXTENTS, b"".join(_PAIR.pack(*pair) for pair in some), size=len(some))


def receive_extents(link: Link, count: int) -> list[Pair]:
    """`count` extents. Raises Violation when others come."""
    extents: list[Pair] = []
    while len(extents) < count:
        header = link.receive(NO_TERMS)
        if header.kind is Kind.EXTENTS and header.size <= count - len(extents):
            extents += _PAIR.iter_unpack(link.payload(header))
        elif header.kind is not Kind.ALIVE:
            raise Violation(f"a frame {header.kind.name} among extents")
    return extents


def _pass_over(header: Header) -> None:
    return None
