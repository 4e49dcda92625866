"""What thin_delta's XML says changed, and that nothing is believed that it would not say."""

import pytest

from blocksync.changes.candidates import ListLostError
from blocksync.changes.thin_delta import parse

BLOCK = 64 * 1024
SIZE = 100 * BLOCK

# As thin_delta 0.9.0 prints it.
ANSWER = """\
<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="1600">
  <diff left="1" right="2">
    <same begin="0" length="4"/>
    <different begin="4" length="2"/>
    <right_only begin="6" length="1"/>
    <same begin="7" length="43"/>
    <left_only begin="50" length="3"/>
    <different begin="98" length="2"/>
  </diff>
</superblock>
"""


def test_what_differs_and_what_one_side_lacks_is_listed():
    found = parse(ANSWER.encode(), (1, 2), SIZE).pairs()
    assert found == [(4 * BLOCK, 3 * BLOCK), (50 * BLOCK, 3 * BLOCK), (98 * BLOCK, 2 * BLOCK)]


def test_the_last_block_ends_with_the_volume():
    assert parse(ANSWER.encode(), (1, 2), SIZE - 512).pairs()[-1] == (98 * BLOCK, 2 * BLOCK - 512)


def test_equal_devices_list_nothing():
    same = '<superblock data_block_size="128"><diff left="1" right="2"/></superblock>'
    assert parse(same.encode(), (1, 2), SIZE).pairs() == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("<diff ", "<difference "),
        ('left="1"', 'left="3"'),
        ('right="2"', 'right="9"'),
        ('data_block_size="128"', 'data_block_size="0"'),
        ('data_block_size="128"', 'data_block_size="99999999999"'),
        ('data_block_size="128"', 'data_block_size="-1"'),
        ('begin="98"', 'begin="99"'),
        ('begin="98"', 'begin="20"'),
        ('begin="98"', 'begin="' + "9" * 60 + '"'),
        ('length="3"', 'length="0"'),
        ('length="3"', ""),
        ("</diff>\n", '</diff><diff left="1" right="2"/>'),
        ("</superblock>\n", ""),
        ("<superblock ", '<!DOCTYPE a [<!ENTITY b "c">]><superblock '),
        (ANSWER, ""),
        ("<superblock ", '<?xml version="1.0" encoding="nope"?><superblock '),
        ("<superblock ", '<?xml version="1.0" encoding="utf-7"?><superblock '),
        ("<superblock ", '<?xml version="1.0" encoding="idna"?><superblock '),
        ("<diff ", "<" + "d" * 1_000_000 + " "),
        (ANSWER, '<superblock data_block_size="128"/>'),
        (ANSWER, '<diff left="1" right="2"/>'),
        (ANSWER, '<superblock data_block_size="128"><different begin="0" length="1"/></superblock>'),
    ],
)
def test_anything_else_loses_the_list(good, bad):
    assert good in ANSWER
    with pytest.raises(ListLostError):
        parse(ANSWER.replace(good, bad).encode(), (1, 2), SIZE)
