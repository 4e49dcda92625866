"""Rooms of a ring: apart from each other, on pages, and had again by whoever waits for them."""

import mmap
import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from blocksync.ends.thread_group import Stopped
from blocksync.wire.ring import Ring, Room
from patience import wait_for

PAGE = mmap.PAGESIZE
PAGES = 8


class LendingAndTakingBack(RuleBasedStateMachine):
    """Every room keeps what was put into it until it is taken back, whatever happens to the others."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring(PAGES * PAGE)
        self.lent: list[tuple[Room, bytes, bytes]] = []
        self.lender: threading.Thread | None = None
        self.number = 0

    @precondition(lambda self: self.lender is None)
    @rule(data=st.integers(1, 5 * PAGE), digests=st.integers(0, 64))
    def lend(self, data: int, digests: int) -> None:
        self.number += 1
        mark = bytes([self.number % 251])

        def borrow() -> None:
            with suppress(Stopped):
                room = self.ring.lend(data, digests)
                room.data[:], room.digests[:] = mark * data, mark * digests
                self.lent.append((room, mark * data, mark * digests))

        self.lender = threading.Thread(target=borrow, daemon=True)
        self.lender.start()
        self.lender.join(0.005 if self.lent else 5)
        self.notice()

    @precondition(lambda self: self.lent)
    @rule(which=st.integers(0, PAGES))
    def take_back(self, which: int) -> None:
        room, _, _ = self.lent.pop(which % len(self.lent))
        self.ring.take_back(room)
        if self.lender is not None:
            self.lender.join(0.005 if self.lent else 5)
        self.notice()

    def notice(self) -> None:
        if self.lender is not None and not self.lender.is_alive():
            self.lender = None
        assert self.lent or self.lender is None

    @invariant()
    def what_is_lent_is_kept(self) -> None:
        for room, data, digests in list(self.lent):
            assert (bytes(room.data), bytes(room.digests)) == (data, digests)

    def teardown(self) -> None:
        self.ring.close()


TestLendingAndTakingBack = LendingAndTakingBack.TestCase
TestLendingAndTakingBack.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@given(data=st.integers(0, 3 * PAGE), digests=st.integers(0, 3 * PAGE))
def test_a_room_takes_up_whole_pages(data: int, digests: int) -> None:
    size = Ring.size_of(data, digests)
    assert size % PAGE == 0
    assert data + digests <= size < data + digests + PAGE


def test_small_frames_wait_in_as_many_rooms_as_there_are_pages() -> None:
    ring = Ring(PAGES * PAGE)
    rooms = [ring.lend(PAGE - 16, 16) for _ in range(PAGES)]
    late: list[Room] = []
    thread = threading.Thread(target=lambda: late.append(ring.lend(1, 0)))
    thread.start()
    thread.join(0.1)
    assert late == []
    # What was lent later is no use: a room lies behind the others.
    ring.take_back(rooms[1])
    thread.join(0.1)
    assert late == []
    ring.take_back(rooms[0])
    thread.join(5)
    assert len(late) == 1


def test_whoever_waits_for_a_room_stops_when_the_ring_is_closed() -> None:
    ring = Ring(PAGE)
    ring.lend(PAGE, 0)
    ends: list[str] = []

    def borrow() -> None:
        try:
            ring.lend(1, 0)
        except Stopped:
            ends.append("stopped")

    thread = threading.Thread(target=borrow, daemon=True)
    thread.start()
    ring.close()
    wait_for(lambda: ends == ["stopped"])


def test_a_room_larger_than_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="a room of"):
        Ring(PAGE).lend(PAGE, 1)
