"""A link: whole frames, deadlines, rates, ends."""

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from blocksync.wire.frames import NO_TERMS, FrameKind, Violation
from blocksync.wire.link import PATIENCE, Link, Lost

Wire = Callable[..., tuple[Link, Link]]


def test_frames_of_many_threads_arrive_whole(wire: Wire) -> None:
    ours, theirs = wire()
    payloads = {size: os.urandom(size) for size in (1, 100, 70000, 2**20)}
    halves = {size: (data[: size // 2], data[size // 2 :]) for size, data in payloads.items()}
    senders = [
        threading.Thread(target=lambda: [ours.send(FrameKind.BYTES, *halves[n], size=n) for n in payloads])
        for _ in range(4)
    ]
    for sender in senders:
        sender.start()
    for _ in range(4 * len(payloads)):
        header = theirs.receive(NO_TERMS)
        assert theirs.payload(header) == payloads[header.size]
    for sender in senders:
        sender.join()


def test_the_end_of_the_connection_is_a_lost_link() -> None:
    with socket.socketpair()[0] as near:
        link = Link(near.fileno(), near.fileno(), peer="their end")
        with pytest.raises(Lost, match="ended"):
            link.receive(NO_TERMS)
        with pytest.raises(Lost):
            link.send(FrameKind.STOP)


def test_silence_is_a_lost_link(wire: Wire) -> None:
    _, theirs = wire(patience=0.5)
    before = time.monotonic()
    with pytest.raises(Lost, match="nothing moved"):
        theirs.receive(NO_TERMS)
    assert 0.5 <= time.monotonic() - before < 3


def test_a_stall_is_noticed_before_the_promised_half_minute() -> None:
    assert PATIENCE < 30


def test_a_peer_that_reads_nothing_and_says_nothing_is_a_lost_link(wire: Wire) -> None:
    ours, _ = wire(patience=0.5)
    with pytest.raises(Lost, match="nothing moved"):
        for _ in range(100):
            ours.send(FrameKind.BYTES, bytes(2**20), size=2**20)


def test_a_peer_that_is_busy_and_says_so_is_waited_for(wire: Wire) -> None:
    ours, theirs = wire(patience=1.0)
    beating = threading.Thread(target=lambda: theirs.beat(lambda: (7, 8)))
    beating.start()
    closing = threading.Timer(2.5, theirs.close)
    closing.start()
    beats = 0
    with pytest.raises(Lost):
        while True:
            header = ours.receive(NO_TERMS)
            assert (header.kind, header.offset, header.size) == (FrameKind.ALIVE, 7, 8)
            beats += 1
    beating.join()
    assert beats >= 3


def test_a_frame_that_was_cut_short_is_followed_by_nothing(wire: Wire) -> None:
    ours, theirs = wire(patience=0.3)
    with pytest.raises(Lost):
        for _ in range(100):
            ours.send(FrameKind.BYTES, bytes(2**20), size=2**20)
    # Room again, but the rest of the frame is not known to anybody.
    theirs.take(memoryview(bytearray(2**16)))
    with pytest.raises(Lost, match="middle of a frame"):
        ours.send(FrameKind.STOP)


def test_a_rate_is_kept_and_silence_is_not_mistaken_for_it(wire: Wire) -> None:
    ours, theirs = wire(patience=0.6)
    ours.limit(200_000)
    before = time.monotonic()
    sender = threading.Thread(target=lambda: ours.send(FrameKind.BYTES, bytes(200_000), size=200_000))
    sender.start()
    theirs.payload(theirs.receive(NO_TERMS))
    sender.join()
    assert 0.7 < time.monotonic() - before < 2.5


def test_a_header_that_cannot_be_is_a_violation(wire: Wire) -> None:
    ours, theirs = wire()
    ours.send(FrameKind.BYTES, b"1234", size=3)
    with pytest.raises(Violation):
        theirs.receive(NO_TERMS)
