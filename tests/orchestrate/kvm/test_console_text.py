"""What a guest says on its console: searched and shown, whatever it says and however much."""

import re
import time
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from blocksync.foreign import MOST
from orchestrate.kvm.console_text import PIECE, WINDOW, Lookout, last_lines

LOGIN = re.compile(rb"\w+ login:")
PANIC = re.compile(rb"Kernel panic")

# Bits of escapes, from which a guest may put together what it likes.
bits = st.lists(
    st.sampled_from(b"\x1b|[|]|31|;|m|P|\\|\x07|\x9b|\xc2\x9b|a|\r".split(b"|")),
    max_size=40,
)


@given(bits)
def test_nothing_that_is_shown_of_a_console_is_an_escape(parts):
    for line in last_lines(b"".join(parts)):
        assert line.isprintable()


def test_escapes_are_taken_out_with_what_belongs_to_them():
    said = b"\x1b[1;32m[  OK  ]\x1b[0m Started \x1b]0;owned\x07Cron\x1b(B.\r\n\x1b[?25l\x1b[2Jweb login: "
    assert last_lines(said) == ["[  OK  ] Started Cron.", "web login:"]


def test_an_escape_within_an_escape_makes_no_third():
    assert last_lines(b"\x1b\x1b[31m[31mred") == ["[31mred"]
    assert last_lines(b"\x1b[3\x1b[31m1mred") == ["1mred"]


def test_what_a_guest_hides_in_a_string_for_the_terminal_does_not_hide_the_rest():
    assert last_lines(b"\x1b]0;" + b"x" * 300 + b"\nKernel panic\n")[-1] == "Kernel panic"


def test_an_endless_line_is_shown_bounded():
    lines = last_lines(b"z" * (5 * 2**20))
    assert len(lines) == 1
    assert len(lines[0]) <= MOST + 10
    assert len(last_lines(b"line\n" * 10**6)) == 20


def test_a_pattern_is_found_across_pieces_and_the_first_sign_counts():
    lookout = Lookout()
    for piece in (b"Debian web lo", b"gin: Kernel", b" panic"):
        assert lookout.find([PANIC, LOGIN]) is None or piece == b" panic"
        lookout.hear(piece)
        if piece == b"gin: Kernel":
            assert lookout.find([PANIC, LOGIN]) == (1, b"web login:")
    assert lookout.find([PANIC, LOGIN]) == (0, b"Kernel panic")
    # What matched, and all before it, is used up.
    lookout.begin()
    assert lookout.find([PANIC, LOGIN]) is None


def test_another_question_looks_through_what_came_since_the_last_match():
    lookout = Lookout()
    lookout.hear(b"web login: " + b"." * 4000)
    assert lookout.find([PANIC]) is None
    lookout.begin()
    assert lookout.find([LOGIN]) == (0, b"web login:")


def test_a_guest_that_prints_for_days_takes_no_memory():
    lookout = Lookout()
    tracemalloc.start()
    try:
        for _ in range(2000):
            lookout.hear(b"a line\n" * 500)
            assert lookout.find([PANIC, LOGIN]) is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * WINDOW
    lookout.hear(b"web login: ")
    assert lookout.find([PANIC, LOGIN]) == (1, b"web login:")
    assert lookout.last_line() == ""


def test_an_endless_word_costs_a_greedy_expression_a_bounded_time():
    lookout = Lookout()
    began = time.monotonic()
    for _ in range(4):
        lookout.hear(b"q" * PIECE)
        assert lookout.find([LOGIN]) is None
    assert time.monotonic() - began < 5
