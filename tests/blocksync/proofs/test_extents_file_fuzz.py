"""Any text as an extents file is read for exactly what stands there, or refused with the line at fault."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from blocksync.errors import Usage
from blocksync.extents import Extents

BUDGETS = [
    pytest.param(settings(max_examples=250, derandomize=True), id="ci"),
    pytest.param(settings(max_examples=50_000), id="long", marks=pytest.mark.long),
]
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
LARGEST = 2**63 - 1

numbers = st.one_of(
    st.integers(0, 10**6), st.integers(0, LARGEST), st.sampled_from([0, 1, LARGEST - 1, LARGEST, LARGEST + 1])
)
words = st.one_of(
    numbers.map(str),
    st.sampled_from(
        ["-1", "1e3", "0x10", "٣", "²", "1_000", "+1", "#", "9" * 5000, "\x1f", "\x85", "1.0", "\0"]
    ),
    st.text(max_size=5),
)
lines = st.lists(words, max_size=4).map(" ".join)
texts = st.lists(lines, max_size=8).map("\n".join)
places = st.one_of(st.integers(0, 10**6), st.integers(0, LARGEST))
spans = st.one_of(st.integers(1, 10**6), st.integers(1, LARGEST))
extents = st.lists(
    st.one_of(
        st.tuples(places, spans).filter(lambda pair: sum(pair) <= LARGEST),
        # To the very end of what a number can say.
        st.integers(0, 10**6).map(lambda offset: (offset, LARGEST - offset)),
    ),
    max_size=30,
)


@pytest.mark.parametrize("budget", BUDGETS)
def test_any_bytes_are_extents_or_a_usage_error(tmp_path: Path, budget: settings) -> None:
    path = tmp_path / "extents"

    @settings(budget, **QUIET)
    @example(b"0 " + b"9" * 5000)
    @given(st.one_of(texts.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=60)))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = Extents.read(path)
        except Usage as error:
            assert str(error).startswith(str(path))
            return
        pairs = found.pairs()
        assert all(offset >= 0 and length > 0 and offset + length <= LARGEST for offset, length in pairs)
        said = [line.split("#")[0].split() for line in content.decode("ascii").splitlines()]
        assert pairs == [(int(offset), int(length)) for offset, length in filter(None, said)]

    read()


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_is_written_is_what_is_read(budget: settings) -> None:
    @settings(budget, **QUIET)
    @given(extents)
    def there_and_back(pairs: list[tuple[int, int]]) -> None:
        assert Extents.from_text(Extents.of(pairs).to_text()).pairs() == pairs

    there_and_back()


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_blocks_that_extents_touch_are_all_looked_at_and_no_others(budget: settings) -> None:
    @settings(budget, **QUIET)
    @given(extents, st.sampled_from([1, 2, 8, 4096, 65536, 2**24]), st.integers(0, 300))
    def widen(pairs: list[tuple[int, int]], block: int, count: int) -> None:
        size = max(0, count * block - block // 3)
        blocks = range(-(-size // block))
        touched = [
            number
            for number in blocks
            if any(
                offset < (number + 1) * block and offset + length > number * block for offset, length in pairs
            )
        ]
        rows = Extents.of(pairs).aligned(block, size).pairs()
        assert [
            number
            for offset, length in rows
            for number in range(offset // block, -(-(offset + length) // block))
        ] == touched
        assert all(offset + length <= size for offset, length in rows)

    widen()
