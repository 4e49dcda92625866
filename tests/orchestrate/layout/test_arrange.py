"""The layout planner: numbers, offsets, the boot loader's place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocksync.errors import Usage
from orchestrate.layout.arrange import FIRST_SECTORS, Demand, arrange
from orchestrate.layout.table import MIB, SECTOR, PartitionKind, TableKind, check

IDENTITY = "6f6f2c3e-31a4-4e5f-8a5e-111111111111"


def demand(number: int | None, size: int) -> Demand:
    return Demand(number=number, size=size, kind=PartitionKind.LINUX)


def test_partition_numbers_follow_the_guests_own():
    table = arrange([demand(2, 10 * MIB), demand(1, MIB), demand(4, MIB)], identity=IDENTITY).table
    assert {part.number: part.size for part in table.partitions} == {2: 10 * MIB, 1: MIB, 4: MIB}


def test_a_second_wish_for_a_number_gets_the_lowest_free_one():
    wishes = [demand(1, MIB), demand(2, MIB), demand(1, MIB), demand(None, MIB)]
    assert arrange(wishes, identity=IDENTITY).numbers == (1, 2, 3, 4)


def test_the_first_partition_starts_at_the_sector_asked_for_and_the_rest_at_whole_mebibytes():
    for sector in FIRST_SECTORS:
        table = arrange(
            [demand(1, 5 * MIB + 512), demand(2, MIB)], identity=IDENTITY, first_sector=sector
        ).table
        first, second = table.partitions
        assert first.offset == sector * SECTOR
        assert second.offset % MIB == 0
        assert second.offset >= first.end


def test_a_small_gap_moves_the_boot_loader_behind_the_last_partition():
    table = arrange([demand(1, MIB)], identity=IDENTITY, first_sector=63).table
    assert table.boot_area.offset >= table.partitions[-1].end
    assert table.boot_area.size == MIB


def test_a_wide_gap_takes_the_boot_loader_and_costs_no_room():
    table = arrange([demand(1, MIB)], identity=IDENTITY).table
    assert table.boot_area.offset == SECTOR
    assert table.size == 2 * MIB


def test_five_volumes_need_a_gpt_with_a_bios_boot_partition():
    table = arrange([demand(None, MIB)] * 5, identity=IDENTITY).table
    assert table.kind is TableKind.GPT
    boot = next(part for part in table.partitions if part.kind is PartitionKind.BIOS_BOOT)
    assert (boot.number, boot.offset) == (6, 34 * SECTOR)


def test_a_table_over_two_tebibytes_is_a_gpt():
    assert arrange([demand(1, 3 * 2**40)], identity=IDENTITY).table.kind is TableKind.GPT


@pytest.mark.parametrize(
    ("demands", "options", "cause"),
    [
        ([], {}, "no volume"),
        ([demand(1, MIB)], {"first_sector": 40}, "40 is not one of"),
        ([demand(1, MIB)], {"first_sector": 32, "kind": TableKind.GPT}, "occupies sector 32"),
        ([demand(1, 4 * MIB)], {"disk_size": 4 * MIB}, "the volumes and their table need 5242880"),
        ([demand(None, MIB)] * 5, {"kind": TableKind.MBR}, "an mbr table has numbers 1 to 4"),
        ([demand(1, 3 * 2**40)], {"kind": TableKind.MBR}, "behind 2 TiB"),
    ],
)
def test_what_cannot_be_laid_out_is_refused_with_its_cause(demands, options, cause):
    with pytest.raises(Usage, match=cause):
        arrange(demands, identity=IDENTITY, **options)


@given(
    st.lists(st.tuples(st.none() | st.integers(1, 140), st.integers(1, 5 * 2**30)), min_size=1, max_size=40),
    st.sampled_from([2048, 63]),
)
def test_any_layout_keeps_every_rule_and_holds_every_volume(volumes, first_sector):
    demands = [demand(number, size) for number, size in volumes]
    layout = arrange(demands, identity=IDENTITY, first_sector=first_sector)
    check(layout.table, "test")
    sizes = {part.number: part.size for part in layout.table.partitions}
    for number, (_, size) in zip(layout.numbers, volumes, strict=True):
        assert 0 <= sizes[number] - size < SECTOR
