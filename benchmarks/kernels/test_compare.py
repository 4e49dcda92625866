"""Comparing two segments that are equal, by block size."""

import os

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from blocksync._copy import mark_differences

SEGMENT = 4 * 2**20
BLOCK_SIZES = [4096 << power for power in range(11)]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_compare_by_block_size(benchmark: BenchmarkFixture, block_size: int) -> None:
    left = os.urandom(SEGMENT)
    right = bytes(bytearray(left))
    bits = bytearray(SEGMENT // block_size // 8 + 1)
    benchmark.extra_info["bytes"] = SEGMENT
    found = benchmark(mark_differences, left, right, SEGMENT, block_size, bits, 0)
    assert found == 0
