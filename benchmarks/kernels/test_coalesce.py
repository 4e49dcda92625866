"""Making extents of the changed blocks of 64 GiB, 1% of them changed at random, by block size."""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from blocksync._copy import count_runs
from blocksync.extents import Extents

SIZE = 64 * 2**30
BLOCK_SIZES = [4096 << power for power in range(11)]


def changed_blocks(block_size: int) -> bytes:
    flags = np.random.default_rng(1).random(SIZE // block_size) < 0.01
    return np.packbits(flags, bitorder="little").tobytes()


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_extents_of_a_bitmap_by_block_size(benchmark: BenchmarkFixture, block_size: int) -> None:
    bits = changed_blocks(block_size)
    extents = benchmark(Extents.of_blocks, bits, block_size, SIZE)
    assert len(extents) == count_runs(bits, SIZE // block_size)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_coalesce_by_block_size(benchmark: BenchmarkFixture, block_size: int) -> None:
    blocks = np.flatnonzero(np.unpackbits(np.frombuffer(changed_blocks(block_size), np.uint8)))
    rows = np.column_stack((blocks * block_size, np.full(len(blocks), block_size))).astype(np.int64)
    scattered = Extents(np.random.default_rng(2).permutation(rows))
    coalesced = benchmark(scattered.coalesce)
    assert coalesced.total == scattered.total


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_count_runs_by_block_size(benchmark: BenchmarkFixture, block_size: int) -> None:
    bits = changed_blocks(block_size)
    assert benchmark(count_runs, bits, SIZE // block_size) > 0
