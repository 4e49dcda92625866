"""Devices are seen through to the bytes that they stand for."""

from pathlib import Path

import pytest

from blocksync.devices.backing import Footprint, of_block

MIB = 2**20


def device(sysfs: Path, number: str, **files: str) -> Path:
    node = sysfs / "dev/block" / number
    node.mkdir(parents=True)
    (node / "dev").write_text(number)
    for name, text in files.items():
        path = node / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return node


def volumes(sysfs: Path) -> None:
    device(sysfs, "8:0", size="1000000")
    for minor in (0, 1, 2, 3, 4, 5):
        device(sysfs, f"253:{minor}", dm__name=f"vg-volume{minor}", size="8192")
    for minor in (4, 5):
        (sysfs / f"dev/block/253:{minor}/slaves").mkdir()
        (sysfs / f"dev/block/253:{minor}/slaves/sda").symlink_to(sysfs / "dev/block/8:0")


TABLES = {
    (253, 0): "0 4096 linear 8:0 2048\n4096 4096 linear 8:0 20480\n",
    (253, 1): "0 8192 linear 8:0 6144\n",
    (253, 2): "0 8192 thin 253:9 1\n",
    (253, 3): "0 8192 thin 253:9 2\n",
    (253, 4): "0 8192 striped 2 128 8:0 2048 8:0 90000\n",
    (253, 5): "",
}


def table(major: int, minor: int) -> str:
    return TABLES[major, minor]


@pytest.mark.parametrize(
    "one, other, overlap",
    [
        ((253, 0), (253, 1), False),
        ((253, 0), (253, 0), True),
        ((253, 0), (8, 0), True),
        ((253, 2), (253, 3), False),
        ((253, 2), (253, 2), True),
        ((253, 4), (253, 1), True),
        ((253, 5), (253, 1), True),
    ],
    ids=["two volumes", "itself", "volume and disk", "two thin", "thin itself", "striped", "no table"],
)
def test_volumes_overlap_when_they_share_bytes_of_a_disk(
    tmp_path: Path, one: tuple[int, int], other: tuple[int, int], overlap: bool
) -> None:
    volumes(tmp_path)
    left = list(of_block(one, 0, 4 * MIB, tmp_path, table))
    right = list(of_block(other, 0, 4 * MIB, tmp_path, table))
    assert any(a.overlaps(b) for a in left for b in right) == overlap


def test_only_the_part_asked_for_counts(tmp_path: Path) -> None:
    volumes(tmp_path)
    assert list(of_block((253, 0), 3 * MIB, 4 * MIB, tmp_path, table)) == [
        Footprint("device 8:0", 20480 * 512 + MIB, 20480 * 512 + 2 * MIB)
    ]


def test_a_partition_is_a_part_of_its_disk(tmp_path: Path) -> None:
    disk = device(tmp_path, "8:16", size="1000000")
    part = disk / "sdb1"
    part.mkdir()
    for name, text in {"partition": "1", "start": "2048", "dev": "8:17"}.items():
        (part / name).write_text(text)
    (tmp_path / "dev/block/8:17").symlink_to(part)
    assert list(of_block((8, 17), 0, 512, tmp_path, table)) == [Footprint("device 8:16", MIB, MIB + 512)]
