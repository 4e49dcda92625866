"""Before the streams of a pass: messages said and awaited in turn, small reads, lists of extents."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from blocksync.wire.extent_list import Pair
from blocksync.wire.frames import GREETING, MOST_EXTENTS, NO_TERMS, FrameHeader, FrameKind, Violation
from blocksync.wire.link import Carrier, Link
from blocksync.wire.messages import (
    PROTOCOL,
    AnyMessage,
    Arrived,
    Connected,
    Done,
    ErrorMessage,
    FarDevice,
    Hello,
    Message,
    Offer,
    OfferAnswer,
    PassOrder,
    Ready,
    Start,
    Totals,
    decode,
    encode,
)

BOOT = Path("/proc/sys/kernel/random/boot_id")

_PAIR = struct.Struct(">QQ")
_KINDS: dict[type[Any], FrameKind] = {
    Hello: FrameKind.HELLO,
    Offer: FrameKind.OFFER,
    OfferAnswer: FrameKind.ANSWER,
    Connected: FrameKind.CONNECTED,
    Arrived: FrameKind.ARRIVED,
    PassOrder: FrameKind.JOB,
    FarDevice: FrameKind.DEVICE,
    Start: FrameKind.START,
    Ready: FrameKind.READY,
    Totals: FrameKind.TOTALS,
    Done: FrameKind.DONE,
    ErrorMessage: FrameKind.ERROR,
}

Heed = Callable[[FrameHeader], None]


def say(link: Link, message: Message) -> None:
    link.send(_KINDS[type(message)], encode(message))


def say_last(link: Link, message: Message, carrier: Carrier) -> None:
    """Say it as the last thing before what is sent goes over `carrier`."""
    link.send_last(carrier, _KINDS[type(message)], encode(message))


def expect(link: Link, kind: type[AnyMessage], meanwhile: dict[FrameKind, Heed] | None = None) -> AnyMessage:
    """The next message, which must be of this kind; frames in `meanwhile` are heeded before it.

    Raises what the other end says went wrong, Violation for anything else, Lost.
    """
    return decode(link.payload(await_frame(link, _KINDS[kind], meanwhile)), kind)


def await_frame(link: Link, kind: FrameKind, meanwhile: dict[FrameKind, Heed] | None = None) -> FrameHeader:
    """The header of the next frame, which must be of this kind; otherwise as `expect`."""
    heeded = {FrameKind.ALIVE: _pass_over, **(meanwhile or {})}
    while (header := link.receive(NO_TERMS)).kind is not kind:
        if header.kind is FrameKind.ERROR:
            raise decode(link.payload(header), ErrorMessage).error(link.peer)
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
        link.send(FrameKind.EXTENTS, b"".join(_PAIR.pack(*pair) for pair in some), size=len(some))


def receive_extents(link: Link, count: int) -> list[Pair]:
    """`count` extents. Raises Violation when others come."""
    extents: list[Pair] = []
    while len(extents) < count:
        header = link.receive(NO_TERMS)
        if header.kind is FrameKind.EXTENTS and header.size <= count - len(extents):
            extents += _PAIR.iter_unpack(link.payload(header))
        elif header.kind is not FrameKind.ALIVE:
            raise Violation(f"a frame {header.kind.name} among extents")
    return extents


def _pass_over(header: FrameHeader) -> None:
    return None
