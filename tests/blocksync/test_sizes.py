"""Sizes as people write them."""

import pytest

from blocksync.errors import Usage
from blocksync.sizes import counted, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4194304", 4194304),
        ("64KiB", 65536),
        ("64k", 65536),
        (" 1.5 MiB ", 1572864),
        ("1MB", 10**6),
        ("2T", 2**41),
        ("0", 0),
    ],
)
def test_units_are_of_1024_unless_they_say_otherwise(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "-1", "1e3", "1.3B", "1 2", "٣", "9" * 5000, "1." + "0" * 5000])
def test_what_is_no_size_is_an_error_for_its_writer(text: str) -> None:
    with pytest.raises(Usage):
        parse_size(text)


def test_a_count_is_plain_digits_of_64_bits_at_most() -> None:
    assert [counted(text) for text in ("0", "007", str(2**64 - 1))] == [0, 7, 2**64 - 1]
    impossible = ("", "-1", "1 ", "1\n", "0x10", "²", "٣", str(2**64), "9" * 5000)
    assert {counted(text) for text in impossible} == {None}


@pytest.mark.parametrize(("size", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (2**50, "1 PiB")])
def test_sizes_are_told_in_the_largest_unit_that_leaves_one(size: int, text: str) -> None:
    assert format_size(size) == text
