"""When a pass will be over: foretold from its moments."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocksync import passes
from blocksync.display.pace import WINDOW, Pace
from blocksync.passes import PassRequest
from blocksync.progress import Progress

MIB = 2**20
GIB = 2**30

# The parts of a source in order: bytes, and whether they are a hole.
parts = st.lists(st.tuples(st.integers(1, 64 * MIB), st.booleans()), min_size=1, max_size=20)
rates = st.integers(MIB // 4, 200 * MIB)


def moments(source: list[tuple[int, bool]], rate: float, limit: int | None = None) -> list[Progress]:
    """A pass over such a source that reads and moves `rate` bytes a second, and skips holes; ten moments a
    second.
    """
    total = sum(size for size, _ in source)
    data = sum(size for size, hole in source if not hole)
    found, now, looked_at, read = [], 0.0, 0, 0

    def moment() -> Progress:
        return Progress(
            phase="copy",
            bytes_done=0,
            bytes_looked_at=looked_at,
            bytes_total=total,
            bytes_changed=read,
            bytes_written=read,
            bytes_read=read,
            bytes_moved=read,
            bytes_to_read=data,
            limit=limit,
            seconds=now,
        )

    found.append(moment())
    piece = max(1, int(rate / 10))
    for size, hole in source:
        for at in range(0, size, size if hole else piece):
            step = min(size - at, size if hole else piece)
            looked_at += step
            if not hole:
                read += step
                now += step / rate
            found.append(moment())
    return found


def foretold(seen: list[Progress]) -> float | None:
    pace = Pace()
    for moment in seen:
        pace.note(moment)
    return pace.eta


@given(parts, rates, st.floats(0, 1))
def test_the_time_to_go_is_never_below_zero(source, rate, share):
    seen = moments(source, rate, int(rate))
    eta = foretold(seen[: max(1, int(len(seen) * share))])
    assert eta is None or eta >= 0


@given(parts, rates)
def test_nothing_is_to_go_at_the_end(source, rate):
    assert foretold(moments(source, rate)) == 0


@given(parts, rates, st.floats(0.2, 0.95))
def test_the_end_is_foretold_wherever_the_holes_are(source, rate, share):
    seen = moments(source, rate, int(rate))
    end = seen[-1].seconds
    so_far = [moment for moment in seen if moment.seconds <= end * share]
    # A few moments of a pass that takes a while.
    if end < 5 or len(so_far) < 10:
        return
    eta = foretold(so_far)
    assert eta is not None
    assert so_far[-1].seconds + eta == pytest.approx(end, rel=0.25)


@pytest.mark.parametrize("holes_first", [True, False])
def test_half_holes_and_a_limit_are_foretold_after_a_fifth_of_the_time(holes_first: bool) -> None:
    source = [(GIB, holes_first), (GIB, not holes_first)]
    seen = moments(source, 40 * MIB, 40 * MIB)
    end = seen[-1].seconds
    so_far = [moment for moment in seen if moment.seconds <= end / 5]
    eta = foretold(so_far)
    assert eta is not None
    assert so_far[-1].seconds + eta == pytest.approx(end, rel=0.05)


def test_a_burst_at_the_start_promises_no_more_than_the_limit_keeps() -> None:
    # The buffers on the way took 32 MiB at once; then 4 MiB a second.
    def at(seconds: float, read: int) -> Progress:
        return Progress(
            phase="copy",
            bytes_done=0,
            bytes_looked_at=read,
            bytes_total=GIB,
            bytes_changed=read,
            bytes_written=read,
            bytes_read=read,
            bytes_moved=read,
            limit=4 * MIB,
            seconds=seconds,
        )

    eta = foretold([at(0, 0), at(0.5, 32 * MIB), at(1, 34 * MIB)])
    assert eta == pytest.approx((GIB - 34 * MIB) / (4 * MIB))


def test_the_recent_past_counts_and_nothing_before_it() -> None:
    def at(seconds: float, read: int) -> Progress:
        return Progress(
            phase="copy",
            bytes_done=0,
            bytes_looked_at=read,
            bytes_total=10 * GIB,
            bytes_changed=0,
            bytes_written=0,
            bytes_read=read,
            bytes_moved=read,
            seconds=seconds,
        )

    fast = [at(tick, tick * 100 * MIB) for tick in range(60)]
    slow = [at(60 + tick, 6000 * MIB + tick * MIB) for tick in range(int(WINDOW) + 5)]
    pace = Pace()
    for moment in fast:
        pace.note(moment)
    assert pace.rate == pytest.approx(100 * MIB)
    for moment in slow:
        pace.note(moment)
    assert pace.rate == pytest.approx(MIB, rel=0.01)
    assert pace.eta == pytest.approx((10 * GIB - slow[-1].bytes_read) / MIB, rel=0.01)


@pytest.mark.parametrize("data_first", [True, False])
def test_the_end_of_a_real_pass_is_foretold_over_half_holes_at_a_limit(
    tmp_path: Path, data_first: bool
) -> None:
    source, half = tmp_path / "source", 12 * MIB
    with source.open("wb") as file:
        file.truncate(2 * half)
        file.seek(0 if data_first else half)
        file.write(bytes(range(1, 256)) * (half // 255))
    pace, told = Pace(), []

    def show(moment: Progress) -> None:
        pace.note(moment)
        told.append((moment.seconds, pace.eta))

    # Each byte is read and written.
    passes.run(
        PassRequest(source=source, target=tmp_path / "target", bytes_per_second=8 * MIB), progress=show
    )
    end = told[-1][0]
    assert end == pytest.approx(2 * half / (8 * MIB), rel=0.3)
    late = [at + eta for at, eta in told if at > end / 5 and eta is not None]
    assert late
    assert late[0] == pytest.approx(end, rel=0.25)
