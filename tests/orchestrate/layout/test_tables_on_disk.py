"""The tables' bytes, read back by the tools that everybody else uses."""

import json
import subprocess
from pathlib import Path

import pytest

from orchestrate.layout import gpt, mbr
from orchestrate.layout.arrange import Demand, arrange
from orchestrate.layout.presence import Presence, compare, encode
from orchestrate.layout.table import MIB, SECTOR, PartitionKind, Table, TableKind

IDENTITY = "6f6f2c3e-31a4-4e5f-8a5e-222222222222"
DEMANDS = [
    Demand(number=2, size=300 * MIB, kind=PartitionKind.LINUX, bootable=True),
    Demand(number=1, size=64 * MIB + 4096, kind=PartitionKind.SWAP),
    Demand(number=3, size=9 * 2**30, kind=PartitionKind.LVM),
]


def write(table: Table, path: Path) -> Path:
    with path.open("wb") as disk:
        disk.truncate(table.size)
        for offset, data in encode(table):
            disk.seek(offset)
            disk.write(data)
    return path


def first_sector_of(disk: Path) -> bytes:
    with disk.open("rb") as opened:
        return opened.read(SECTOR)


def sfdisk(*argv: str) -> str:
    return subprocess.run(["sfdisk", *argv], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("kind", TableKind)
@pytest.mark.parametrize("first_sector", [2048, 63])
def test_sfdisk_reads_the_planned_numbers_offsets_and_types(tmp_path, kind, first_sector):
    table = arrange(DEMANDS, identity=IDENTITY, kind=kind, first_sector=first_sector).table
    disk = write(table, tmp_path / "disk")
    found = json.loads(sfdisk("--json", str(disk)))["partitiontable"]
    assert found["label"] == {"mbr": "dos", "gpt": "gpt"}[kind]
    by_number = {part["node"].removeprefix(str(disk)): part for part in found["partitions"]}
    assert len(by_number) == len(table.partitions)
    for part in table.partitions:
        seen = by_number[str(part.number)]
        assert (seen["start"] * SECTOR, seen["size"] * SECTOR) == (part.offset, part.size)
    swap = by_number["1"]["type"]
    assert swap == {"mbr": "82", "gpt": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"}[kind]
    assert "No errors detected" in sfdisk("--verify", str(disk))


def test_the_mbr_equals_the_one_that_sfdisk_writes_for_the_same_layout(tmp_path):
    table = arrange(DEMANDS, identity=IDENTITY, kind=TableKind.MBR).table
    ours = write(table, tmp_path / "ours")
    theirs = tmp_path / "theirs"
    with theirs.open("wb") as disk:
        disk.truncate(table.size)
    script = sfdisk("--dump", str(ours))
    subprocess.run(["sfdisk", "-q", "--no-tell-kernel", str(theirs)], input=script, text=True, check=True)
    assert first_sector_of(theirs)[mbr.TABLE_OFFSET :] == first_sector_of(ours)[mbr.TABLE_OFFSET :]


def test_a_gpt_names_its_disk_and_its_partitions_as_planned(tmp_path):
    table = arrange(DEMANDS, identity=IDENTITY, kind=TableKind.GPT).table
    found = json.loads(sfdisk("--json", str(write(table, tmp_path / "disk"))))["partitiontable"]
    assert found["id"].lower() == IDENTITY
    uuids = {part["uuid"].lower() for part in found["partitions"]}
    assert uuids == {str(gpt.partition_identity(table, part.number)) for part in table.partitions}


@pytest.mark.parametrize("kind", TableKind)
def test_every_interrupted_writing_counts_as_absent_and_never_as_another_table(kind):
    ranges = encode(arrange(DEMANDS, identity=IDENTITY, kind=kind).table)
    for written in range(len(ranges)):
        found = [
            (data, data if index < written else bytes(len(data))) for index, (_, data) in enumerate(ranges)
        ]
        assert compare(found) is Presence.ABSENT
    assert compare((data, data) for _, data in ranges) is Presence.SAME
    assert compare((data, b"\x01" * len(data)) for _, data in ranges) is Presence.DIFFERENT
