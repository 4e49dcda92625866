"""The checker notices every lost, torn or foreign record of the witness."""

import hashlib
from pathlib import Path

import pytest
from witness import HEADER, LOG, RECORD, RECORDS, SLOTS, account, acknowledged


def body(number: int) -> bytes:
    return hashlib.shake_256(str(number).encode()).digest(RECORD - HEADER)


def line(number: int) -> str:
    return f"{number} {hashlib.sha256(body(number)).hexdigest()}"


def write_record(srv: Path, number: int) -> Path:
    path = srv / RECORDS / str(number % SLOTS)
    path.write_bytes(f"{line(number):<{HEADER - 1}}\n".encode() + body(number))
    return path


@pytest.fixture
def written(tmp_path):
    """Root and /srv of a guest whose witness wrote 100 records."""
    root, srv = tmp_path / "root", tmp_path / "srv"
    (root / LOG).parent.mkdir(parents=True)
    (srv / RECORDS).mkdir(parents=True)
    (root / LOG).write_text("".join(line(number) + "\n" for number in range(1, 101)))
    for number in range(1, 101):
        write_record(srv, number)
    return root, srv


EXPECTED = acknowledged("\n".join(f"witness: acknowledged {line(n)}" for n in (1, 99, 100)))


def test_a_whole_log_is_right(written):
    found = account(*written, EXPECTED)
    assert (found.last, found.compared, found.wrong) == (100, SLOTS, ())


def test_a_record_that_is_not_logged_yet_may_have_its_slot(written):
    write_record(written[1], 101)
    assert account(*written, EXPECTED).wrong == ()


def test_acknowledgements_are_read_off_a_console_with_other_words_on_it():
    text = (
        f"[  1.0] boot\r\nwitness: acknowledged {line(7)}\r\nweb1 login: witness: acknowledged {line(8)}\r\n"
    )
    assert acknowledged(text) == {number: line(number).split()[1] for number in (7, 8)}


def cut_log(root, srv):
    text = (root / LOG).read_text()
    (root / LOG).write_text("".join(text.splitlines(keepends=True)[:98]))


def tear_log(root, srv):
    (root / LOG).write_text((root / LOG).read_text()[:-10])


def gap_in_log(root, srv):
    lines = (root / LOG).read_text().splitlines(keepends=True)
    (root / LOG).write_text("".join(lines[:50] + lines[51:]))


def tear_record(root, srv):
    path = srv / RECORDS / str(90 % SLOTS)
    path.write_bytes(path.read_bytes()[:40000] + bytes(RECORD - 40000))


def shorten_record(root, srv):
    path = srv / RECORDS / str(90 % SLOTS)
    path.write_bytes(path.read_bytes()[:4096])


def lose_record(root, srv):
    (srv / RECORDS / str(90 % SLOTS)).unlink()


def stale_record(root, srv):
    write_record(srv, 90 - SLOTS)


def record_from_the_future(root, srv):
    write_record(srv, 102)


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (cut_log, "record 99 was acknowledged"),
        (tear_log, "torn"),
        (gap_in_log, "line 51"),
        (tear_record, "record 90 is torn"),
        (shorten_record, "record 90 is torn"),
        (lose_record, "record 90 has no file"),
        (stale_record, "holds record 26"),
        (record_from_the_future, "holds record 102"),
    ],
)
def test_each_kind_of_harm_is_noticed(written, harm, complaint):
    harm(*written)
    assert any(complaint in wrong for wrong in account(*written, EXPECTED).wrong)
