"""What the next pass would take: the numbers that made the records come out again."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrate.copying import forecast
from orchestrate.copying.forecast import Forecast
from orchestrate.job.folder import PassRecord

MIB = 2**20
# Bytes a second, and seconds.
rates = st.floats(MIB, 1000 * MIB)
times = st.floats(0.1, 20)


def night(
    dirty: float, transfer: float, fixed: float, passes: int, *, listed: bool = True
) -> list[PassRecord]:
    """The records of passes one after the other, the first over 100 GiB."""
    records, at, gap = [], 1e9, 0.0
    for number in range(passes):
        work = dirty * gap if number else 100 * 1024 * MIB
        seconds = fixed + work / transfer
        records.append(
            PassRecord(
                at=at,
                seconds=seconds,
                looked_at=int(work) if listed else 100 * 1024 * MIB,
                read=int(work),
                changed=int(work),
                written=int(work),
                source="snapshots" if listed else "volumes",
                listed=listed and number > 0,
            )
        )
        at, gap = at + seconds, seconds
    return records


@given(rates, rates, times, st.integers(2, 12), st.booleans())
def test_the_rates_that_made_the_records_are_found(dirty, transfer, fixed, passes, listed):
    load = dirty / transfer
    if not 0.01 < load < 0.9:
        return
    found = forecast.of(night(dirty, transfer, fixed, passes, listed=listed))
    assert found is not None
    assert found.dirty_rate == pytest.approx(dirty, rel=0.1)
    if passes > 2:
        assert found.transfer_rate == pytest.approx(transfer, rel=0.05)
        assert found.fixed == pytest.approx(fixed, rel=0.3, abs=0.3)


@given(rates, rates, times, st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_later_the_stop_the_longer_the_last_pass(dirty, transfer, fixed, one, other):
    found = Forecast(dirty, transfer, fixed)
    early, late = sorted((one, other))
    assert fixed <= found.seconds(early) <= found.seconds(late)


@given(rates, rates, times, times)
def test_it_says_why_exactly_when_passes_do_not_come_down_to_the_limit(dirty, transfer, fixed, limit):
    found = Forecast(dirty, transfer, fixed)
    assert found.converges(limit) == (found.why_not(limit) == "")
    assert found.converges(limit) or not found.converges(limit / 2)


@given(rates, rates, times)
def test_the_shortest_pass_is_one_that_the_guest_keeps_up_with(dirty, transfer, fixed):
    found = Forecast(dirty, transfer, fixed)
    if found.shortest is None:
        assert dirty >= transfer
    else:
        assert found.seconds(found.shortest) == pytest.approx(found.shortest, rel=1e-6)


def test_nothing_is_foretold_before_two_passes():
    assert forecast.of([]) is None
    assert forecast.of(night(MIB, 10 * MIB, 1, 1)) is None


def test_a_guest_that_writes_more_than_is_moved_is_named_with_both_rates():
    found = forecast.of(night(20 * MIB, 10 * MIB, 1, 3))
    assert found is not None
    assert not found.converges(3600)
    assert "changes 20" in found.why_not(3600)
    assert "move 10" in found.why_not(3600)


def test_a_pass_that_was_held_back_does_not_make_the_rate():
    free = night(MIB, 100 * MIB, 1, 3)
    # The same night goes on at 2 MiB a second: each pass takes longer, and the guest changes as before.
    at, held = free[-1].at + free[-1].seconds, list(free)
    for _ in range(4):
        gap = at - held[-1].at
        work = int(MIB * gap)
        seconds = 1 + work / (2 * MIB)
        held.append(
            replace(free[-1], at=at, seconds=seconds, looked_at=work, read=work, changed=work, limit=2 * MIB)
        )
        at += seconds
    found = forecast.of(held)
    assert found is not None
    assert found.transfer_rate == pytest.approx(100 * MIB, rel=0.05)
    assert found.dirty_rate == pytest.approx(MIB, rel=0.1)
    assert found.fixed == pytest.approx(1, rel=0.3)


def test_where_every_pass_was_held_back_they_tell_at_least_how_long_it_may_take():
    limited = [replace(record, limit=10 * MIB) for record in night(MIB, 10 * MIB, 1, 3)]
    assert forecast.of(limited) == forecast.of(night(MIB, 10 * MIB, 1, 3))


def test_records_of_earlier_releases_have_no_limit():
    (record,) = night(MIB, 10 * MIB, 1, 1)
    fields = msgspec.to_builtins(record)
    del fields["limit"]
    assert msgspec.convert(fields, PassRecord) == record
