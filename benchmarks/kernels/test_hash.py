"""Hashing one segment's worth of data, by block size."""

import os

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from blocksync._copy import hash_blocks

SEGMENT = 4 * 2**20
BLOCK_SIZES = [4096 << power for power in range(11)]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_hash_by_block_size(benchmark: BenchmarkFixture, block_size: int) -> None:
    data = os.urandom(SEGMENT)
    digests = bytearray(SEGMENT // block_size * 16)
    benchmark.extra_info["bytes"] = SEGMENT
    benchmark(hash_blocks, data, SEGMENT, block_size, digests, 0)
    assert any(digests[-16:])
