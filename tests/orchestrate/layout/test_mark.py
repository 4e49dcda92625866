"""The mark on a disk that was handed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocksync.errors import Refused
from orchestrate.layout import boot_code, mark
from orchestrate.layout.arrange import Demand, arrange
from orchestrate.layout.mark import UNREADABLE, HandoverMark
from orchestrate.layout.table import MIB, SECTOR, PartitionKind, TableKind

CUTOVER = "00112233445566778899aabbccddeeff"


@given(st.text(max_size=100), st.integers(0, 2**64 - 1))
def test_a_mark_is_read_as_it_was_written(guest, since):
    try:
        guest.encode()
    except UnicodeEncodeError:
        return
    written = HandoverMark(guest, since, CUTOVER)
    assert len(written.pack()) == SECTOR
    assert mark.unpack(written.pack()) == written


@given(st.binary(min_size=SECTOR, max_size=SECTOR))
def test_other_bytes_are_not_a_mark(sector):
    assert mark.unpack(sector) is None
    assert mark.unpack(mark.NONE) is None


@pytest.mark.parametrize("at", [8, 100, SECTOR - 1])
def test_a_damaged_mark_still_says_that_the_disk_is_somebody_s(at):
    sector = bytearray(HandoverMark("web1", 1, CUTOVER).pack())
    sector[at] ^= 1
    assert mark.unpack(bytes(sector)) == UNREADABLE


@pytest.mark.parametrize("kind", TableKind)
@pytest.mark.parametrize("first_sector", [2048, 63])
def test_the_mark_lies_outside_of_every_partition_of_a_guest_s_and_of_grub(kind, first_sector):
    demands = [Demand(number=1, size=8 * MIB, kind=PartitionKind.LINUX)]
    table = arrange(
        demands, identity="6f6f2c3e-31a4-4e5f-8a5e-222222222222", kind=kind, first_sector=first_sector
    ).table
    at = mark.place(table.boot_area)
    for part in table.partitions:
        assert part.kind is PartitionKind.BIOS_BOOT or at + SECTOR <= part.offset or at >= part.end
    room = table.boot_area.size - SECTOR
    ends = [
        offset + len(data) for offset, data in boot_code.place(bytes(SECTOR), bytes(room), table.boot_area)
    ]
    assert max(ends) <= at
    with pytest.raises(Refused):
        boot_code.place(bytes(SECTOR), bytes(room + 1), table.boot_area)
