"""An end that is lied to: it writes nothing that it should not, says what is wrong, and ends."""

import os
import threading
import time
from collections.abc import Callable

import pytest
from played_ends import BLOCK, BLOCKS, SIZE, TAIL, Serve, Served, digests_heard, digests_of, next_frame

from blocksync.digests.hashes import XXH3
from blocksync.errors import BlocksyncError, Failed
from blocksync.wire.conversation import expect, receive_extents, say
from blocksync.wire.frames import Codec, FrameHeader, FrameKind, Violation
from blocksync.wire.link import Link
from blocksync.wire.messages import Done, ErrorMessage, Hello, Totals
from blocksync.wire.ring import Ring

Play = Callable[[Served], None]
NEW = os.urandom(BLOCK)


def send_block(served: Served, number: int, data: bytes = NEW, digest: bytes | None = None) -> None:
    served.peer.send(FrameKind.DATA, digest or XXH3.digest(data), data, offset=number * BLOCK, size=len(data))


def send_totals(served: Served, **lies: object) -> None:
    truth = {"frames": 1, "looked_at": SIZE, "read": SIZE, "changed": BLOCK, "complete": True}
    say(served.peer, Totals(**truth | lies))


def test_an_honest_source_is_served(serve_target: Serve) -> None:
    served = serve_target()
    before = served.path.read_bytes()
    heard = digests_heard(served)
    assert heard[:16] == XXH3.digest(before[BLOCK : 2 * BLOCK])
    assert heard[-16:] == XXH3.digest(before[BLOCK + SIZE - TAIL : BLOCK + SIZE])
    send_block(served, 1)
    served.peer.send(FrameKind.ZEROS, offset=SIZE - TAIL, size=TAIL)
    send_totals(served, frames=2, changed=BLOCK + TAIL)
    served.finish()
    after = bytearray(before)
    after[2 * BLOCK : 3 * BLOCK] = NEW
    after[BLOCK + SIZE - TAIL : BLOCK + SIZE] = bytes(TAIL)
    assert served.path.read_bytes() == after
    assert served.gates == ["opened"]
    assert served.changed == bytes([0b10, 0b10])


def raw(header: FrameHeader, payload: bytes = b"") -> Play:
    def play(served: Served) -> None:
        served.peer.send_program(header.pack() + payload)

    return play


def packed_lie(served: Served) -> None:
    junk = os.urandom(100)
    served.peer.send(FrameKind.DATA, XXH3.digest(NEW), junk, size=BLOCK, codec=Codec.ZSTD)


def behind_the_last(served: Served) -> None:
    send_block(served, BLOCKS)


LIES: dict[str, Play] = {
    "data that is not what was hashed": lambda served: send_block(served, 0, digest=bytes(16)),
    "a block behind the last": behind_the_last,
    "an offset that overflows": raw(
        FrameHeader(FrameKind.DATA, Codec.NONE, 16 + BLOCK, 2**64 - BLOCK, BLOCK)
    ),
    "a negative offset": raw(FrameHeader(FrameKind.ZEROS, Codec.NONE, 0, 2**63, BLOCK)),
    "half a block": raw(FrameHeader(FrameKind.DATA, Codec.NONE, 16 + 512, 0, 512), bytes(528)),
    "zeros over the end": raw(FrameHeader(FrameKind.ZEROS, Codec.NONE, 0, 0, SIZE + 1)),
    "an endless payload": raw(FrameHeader(FrameKind.DATA, Codec.NONE, 2**32 - 1, 0, BLOCK)),
    "no length and a count": raw(FrameHeader(FrameKind.DATA, Codec.NONE, 0, 0, BLOCK)),
    "junk for compressed data": packed_lie,
    "what only a target says": raw(FrameHeader(FrameKind.UNKNOWN, Codec.NONE, 0, 0, BLOCK)),
    "a change in a pass that is not dry": raw(FrameHeader(FrameKind.DIFFERS, Codec.NONE, 0, 0, BLOCK)),
    "totals of another number of frames": send_totals,
    "totals of more than there is": lambda served: send_totals(
        served, frames=0, changed=0, looked_at=SIZE + 1
    ),
    "a complete pass over a part": lambda served: send_totals(served, frames=0, changed=0, looked_at=1),
    "totals that are none": raw(FrameHeader(FrameKind.TOTALS, Codec.NONE, 2, 0, 0), b"[]"),
    "an unknown frame": lambda served: served.peer.send_program(bytes(24)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_target_refuses_and_writes_nothing(serve_target: Serve, lie: str) -> None:
    served = serve_target()
    before = served.path.read_bytes()
    digests_heard(served)
    LIES[lie](served)
    with pytest.raises(Violation):
        served.finish()
    served.close()
    assert served.path.read_bytes() == before


def test_a_target_takes_no_block_twice(serve_target: Serve) -> None:
    # The second might be applied before the first.
    served = serve_target()
    before = served.path.read_bytes()
    digests_heard(served)
    send_block(served, 3)
    send_block(served, 3, os.urandom(BLOCK))
    with pytest.raises(Violation, match="second time"):
        served.finish()
    served.close()
    after = served.path.read_bytes()
    assert after[4 * BLOCK : 5 * BLOCK] in (NEW, before[4 * BLOCK : 5 * BLOCK])
    assert (after[: 4 * BLOCK], after[5 * BLOCK :]) == (before[: 4 * BLOCK], before[5 * BLOCK :])


def test_a_target_lets_no_more_wait_for_its_disk_than_it_has_room_for(
    serve_target: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocksync.ends.target.MOST_WAITING", 2)
    disk = threading.Event()
    served = serve_target(gate=disk.wait)
    digests_heard(served)
    for number in range(BLOCKS - 1):
        served.peer.send(FrameKind.ZEROS, offset=number * BLOCK, size=BLOCK)
    time.sleep(0.5)
    # The third has been read, and waits for a place.
    assert served.end.bytes_changed == 3 * BLOCK
    disk.set()
    send_totals(served, frames=BLOCKS - 1, changed=(BLOCKS - 1) * BLOCK)
    served.finish()
    assert served.path.read_bytes()[BLOCK : BLOCKS * BLOCK] == bytes((BLOCKS - 1) * BLOCK)


@pytest.mark.parametrize("sent", [0, BLOCKS - 1], ids=["waiting for frames", "waiting for room"])
def test_no_thread_of_a_target_stays_when_another_one_failed(
    serve_target: Serve, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setattr("blocksync.ends.target.QUEUE_BYTES", 2 * Ring.size_of(BLOCK, 16))
    monkeypatch.setattr("blocksync.ends.target.FEWEST_SEGMENTS", 0)
    disk = threading.Event()
    served = serve_target(gate=disk.wait)
    digests_heard(served)
    for number in range(sent):
        send_block(served, number)
    time.sleep(0.3)
    served.crew.fail(Failed("somebody", "failed"))
    disk.set()
    served.link.close()
    joining = threading.Thread(target=served.crew.join, daemon=True)
    joining.start()
    joining.join(5)
    assert not joining.is_alive()


def test_a_target_takes_nothing_before_it_has_told_what_it_holds(serve_target: Serve) -> None:
    # Its digests do not get through: nobody reads them, and there are more than the link holds.
    served = serve_target(wanted=None)
    served.peer.send(FrameKind.ZEROS, offset=0, size=SIZE)
    digests_heard(served)
    try:
        send_totals(served, frames=1, changed=SIZE)
        served.finish()
    except Violation as violation:
        assert "before they were asked for" in violation.cause
    else:
        # All was told before the frame came.
        assert served.path.read_bytes() == bytes(2 * BLOCK + SIZE)


def test_a_target_writes_only_in_the_extents_of_the_pass(serve_target: Serve) -> None:
    served = serve_target(extents=[(0, BLOCK), (4 * BLOCK, BLOCK)])
    before = served.path.read_bytes()
    for _ in range(2):
        next_frame(served)
    served.peer.send(FrameKind.ZEROS, offset=2 * BLOCK, size=BLOCK)
    with pytest.raises(Violation, match="not about"):
        served.finish()
    assert served.path.read_bytes() == before


def test_a_dry_target_takes_no_data(serve_target: Serve) -> None:
    served = serve_target(dry_run=True)
    before = served.path.read_bytes()
    digests_heard(served)
    send_block(served, 0)
    with pytest.raises(Violation):
        served.finish()
    assert served.path.read_bytes() == before


def test_the_source_s_error_is_raised_by_the_target(serve_target: Serve) -> None:
    served = serve_target()
    digests_heard(served)
    say(served.peer, ErrorMessage.of(Failed("/dev/vg0/root", "cannot be read at byte 7: I/O error")))
    with pytest.raises(Failed, match="their end: /dev/vg0/root: cannot be read at byte 7"):
        served.finish()


def tell_everything(served: Served) -> None:
    served.peer.send(FrameKind.UNKNOWN, size=SIZE)


def test_an_honest_target_is_served(serve_source: Serve) -> None:
    served = serve_source()
    data = served.path.read_bytes()
    held = digests_of(data)
    served.peer.send(FrameKind.DIGESTS, held[:16], bytes(16), held[32:], size=SIZE)
    header, payload = next_frame(served)
    assert (header.kind, header.offset, header.size) == (FrameKind.DATA, BLOCK, BLOCK)
    assert payload == held[16:32] + data[BLOCK : 2 * BLOCK]
    header, _ = next_frame(served)
    assert header.kind is FrameKind.TOTALS
    say(served.peer, Done(frames=1))
    served.finish()
    assert served.gates == ["opened"]


def test_nothing_is_sent_when_nothing_differs(serve_source: Serve) -> None:
    served = serve_source()
    data = served.path.read_bytes()
    held = digests_of(data)
    served.peer.send(FrameKind.DIGESTS, held, size=SIZE)
    assert next_frame(served)[0].kind is FrameKind.TOTALS
    say(served.peer, Done(frames=0))
    served.finish()
    assert served.gates == []


def done_at_once(served: Served) -> None:
    say(served.peer, Done(frames=0))


def durable_before_it_was_sent(served: Served) -> None:
    served.peer.send(FrameKind.DURABLE, offset=2**40)


def told_twice(served: Served) -> None:
    served.peer.send(FrameKind.UNKNOWN, size=BLOCK)
    served.peer.send(FrameKind.UNKNOWN, size=BLOCK)


TARGET_LIES: dict[str, Play] = {
    "done before the totals": done_at_once,
    "more durable than was sent": durable_before_it_was_sent,
    "a block told twice": told_twice,
    "digests out of order": raw(FrameHeader(FrameKind.UNKNOWN, Codec.NONE, 0, BLOCK, BLOCK)),
    "digests behind the end": raw(FrameHeader(FrameKind.UNKNOWN, Codec.NONE, 0, 0, SIZE + BLOCK)),
    "more digests than blocks": raw(FrameHeader(FrameKind.DIGESTS, Codec.NONE, 32, 0, BLOCK), bytes(32)),
    "data for the source": raw(FrameHeader(FrameKind.ZEROS, Codec.NONE, 0, 0, BLOCK)),
    "a read of the source": raw(FrameHeader(FrameKind.READ, Codec.NONE, 0, 0, BLOCK)),
    "an overflow": raw(FrameHeader(FrameKind.DIGESTS, Codec.NONE, 16, 2**64 - BLOCK, BLOCK)),
    "an unknown frame": lambda served: served.peer.send_program(bytes(24)),
}


@pytest.mark.parametrize("lie", TARGET_LIES)
def test_a_source_refuses(serve_source: Serve, lie: str) -> None:
    served = serve_source()
    TARGET_LIES[lie](served)
    with pytest.raises(Violation):
        served.finish()


def test_a_source_stops_when_it_is_asked_and_says_what_it_did(serve_source: Serve) -> None:
    served = serve_source()
    served.peer.send(FrameKind.STOP)
    header, payload = next_frame(served)
    assert header.kind is FrameKind.TOTALS
    assert b'"complete":false' in payload
    say(served.peer, Done(frames=0))
    served.finish()
    assert not served.end.complete


@pytest.mark.parametrize(
    "frame",
    [FrameHeader(FrameKind.DATA, Codec.NONE, 1, 0, 1), FrameHeader(FrameKind.DONE, Codec.NONE, 2, 0, 0)],
    ids=lambda header: header.kind.name,
)
def test_a_frame_out_of_turn_is_a_violation(
    wire: Callable[[], tuple[Link, Link]], frame: FrameHeader
) -> None:
    ours, theirs = wire()
    theirs.send_program(frame.pack() + b"{}")
    with pytest.raises(BlocksyncError):
        expect(ours, Hello)


def test_more_extents_than_were_said_are_a_violation(wire: Callable[[], tuple[Link, Link]]) -> None:
    ours, theirs = wire()
    theirs.send(FrameKind.EXTENTS, bytes(32), size=2)
    with pytest.raises(Violation):
        receive_extents(ours, 1)
