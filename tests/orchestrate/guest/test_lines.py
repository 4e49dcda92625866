from hypothesis import given
from hypothesis import strategies as st

from orchestrate.guest.files.lines import bodies, rewritten, with_added


@given(st.binary())
def test_any_bytes_come_out_as_they_went_in(content: bytes):
    assert rewritten(content, lambda body: body) == content


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line and b"\r" not in line)))
def test_lines_end_at_newlines_alone(lines: list[bytes]):
    content = b"".join(line + b"\n" for line in lines)
    assert [body.encode("utf-8", "surrogateescape") for body in bodies(content)] == lines


def test_a_dropped_line_takes_its_end_along():
    assert rewritten(b"a\r\nb\r\nc", lambda body: None if body == "b" else body) == b"a\r\nc"
    assert rewritten(b"a\r\nb", lambda body: None if body == "b" else body) == b"a\r\n"


def test_added_lines_end_as_the_others_do():
    assert with_added(b"", ["x"]) == b"x\n"
    assert with_added(b"a\n", ["x", "y"]) == b"a\nx\ny\n"
    assert with_added(b"a\r\n", ["x"]) == b"a\r\nx\r\n"
    assert with_added(b"a", ["x"]) == b"a\nx"
    assert with_added(b"a\n", []) == b"a\n"
