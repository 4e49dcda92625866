"""Texts of guests and hosts, which must not act on the terminal that shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocksync.errors import Failed
from blocksync.foreign import shown, shown_bytes, shown_lines


@given(st.text(max_size=300), st.integers(0, 80))
def test_what_is_shown_is_one_printable_line_of_bounded_length(text, most):
    line = shown(text, most)
    assert line.isprintable()
    assert len(line) <= most + len(" ...")


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b]0;title\x07",
        "\x9b31m",
        "\x1b\x1b[0m[31m",
        "\u202eevil",
        "a\nerror: all is well",
        "\udcff",
        "\x08\x08",
    ],
)
def test_no_character_that_a_terminal_obeys_comes_out(hostile):
    assert all(each.isprintable() for each in shown(hostile))
    told = str(Failed("thing " + hostile, "cause " + hostile, "way " + hostile))
    assert all(each.isprintable() or each == "\n" for each in told)


def test_plain_words_are_shown_as_they_are():
    assert shown("Grüße von web1, 3 MiB") == "Grüße von web1, 3 MiB"
    assert shown_bytes(b"two\n  words") == "two words"


def test_an_error_is_bounded_whatever_it_quotes():
    assert len(str(Failed("console", "x" * 10_000_000))) < 20_000


def test_the_last_lines_are_few_and_short_though_a_guest_prints_no_line_end():
    assert shown_lines("a\n\nb\nc  \n", 2) == ["b", "c"]
    assert all(len(line) < 500 for line in shown_lines("y" * 5_000_000, 10))
