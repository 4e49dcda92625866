"""Names of logical volumes and of our snapshots, and what device-mapper says of them."""

import pytest

from blocksync.changes.lvm import dm_name, split_path
from blocksync.changes.snapshots import CHUNK_SIZE, parse_fill, store_size
from blocksync.errors import Usage


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/dev/vg0/web1-root", ("vg0", "web1-root")),
        ("vg0/web1-root", ("vg0", "web1-root")),
        ("/dev/mapper/vg0-web1--root", ("vg0", "web1-root")),
        ("/dev/mapper/my--vg-a--b", ("my-vg", "a-b")),
    ],
)
def test_a_volume_is_known_by_each_of_its_paths(path, parts):
    assert split_path(path) == parts


def test_hyphens_are_doubled_for_device_mapper_and_back():
    assert dm_name("my-vg", "web1-root") == "my--vg-web1--root"
    assert split_path("/dev/mapper/" + dm_name("my-vg", "web1-root")) == ("my-vg", "web1-root")


@pytest.mark.parametrize("path", ["/dev/vg0/" + "x" * 120, "/dev/vg0/" + "-x", "/dev/vg0/x y", "/dev/vg0/"])
def test_a_name_that_lvm_would_refuse_is_a_mistake_of_usage(path):
    with pytest.raises(Usage):
        split_path(path)


def test_fill_is_in_bytes():
    fill = parse_fill("0 2097152 snapshot 16384/131072 128\n")
    assert (fill.used, fill.total, fill.lost) == (16384 * 512, 131072 * 512, None)


def test_a_thin_pool_fills_by_its_data_blocks():
    fill = parse_fill("0 2097152 thin-pool 3 121/4096 800/1600 - rw discard_passdown queue_if_no_space -\n")
    assert (fill.used, fill.total, fill.lost) == (800, 1600, None)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("0 2097152 snapshot Invalid\n", "Invalid"),
        ("0 2097152 snapshot Overflow\n", "Overflow"),
        ("0 2097152 snapshot Merge failed\n", "Merge failed"),
        ("0 2097152 snapshot Unknown\n", "Unknown"),
        ("0 2097152 snapshot 131072/131072 128\n", "full"),
        ("0 2097152 thin-pool Fail\n", "Fail"),
        ("0 2097152 thin-pool 3 121/4096 1600/1600 - rw\n", "full"),
        ("0 2097152 linear \n", "no snapshot"),
        ("", "no snapshot"),
    ],
)
def test_a_snapshot_whose_list_is_lost_says_why(status, reason):
    assert reason in (parse_fill(status).lost or "")


def test_a_store_is_a_share_of_its_volume_within_what_it_can_use():
    gib = 2**30
    assert store_size(100 * gib, 0.2) == 20 * gib
    assert store_size(gib, 0.01) == 64 * 2**20
    chunks = 4 * 2**20 // CHUNK_SIZE
    assert store_size(4 * 2**20, 1.0) == (chunks + 2) * CHUNK_SIZE
