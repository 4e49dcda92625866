"""What `blocksync tune` promises: honest shares of blocks, a target that keeps its bytes, a sound advice."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blocksync.devices import device as devices
from blocksync.errors import Interrupted, Refused, Usage
from blocksync.interruption import Stop
from blocksync.tuning import patterns, rates, tune, watch
from blocksync.tuning.rates import Rates
from blocksync.tuning.tune import TuneRequest

MIB = 2**20
GIB = 2**30
Image = Callable[[str, int], Path]
Attach = Callable[..., Path]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment: these tests are about what is done with figures, not about the figures."""
    monkeypatch.setattr(rates, "LONG_ENOUGH", 0.002)


def pages_of(pattern: list[tuple[float, int]], size: int) -> bytes:
    """A bitmap of 4 KiB pages dirtied at random: (share, run in bytes)."""
    pages = size // 4096
    random = np.random.default_rng(7)
    flags = np.zeros(pages, np.uint8)
    for share, run in pattern:
        for start in random.integers(0, pages - run // 4096, int(share * size / run)):
            flags[start : start + run // 4096] = 1
    return np.packbits(flags, bitorder="little").tobytes()


@pytest.mark.parametrize("block", tune.BLOCK_SIZES)
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1%:4KiB", [(0.01, 4096)]),
        ("0.5%:4KiB+0.5%:256KiB", [(0.005, 4096), (0.005, 256 * 1024)]),
    ],
)
def test_the_stated_pattern_touches_as_many_blocks_as_random_writes_do(
    text: str, parts: list[tuple[float, int]], block: int
) -> None:
    size = 4 * GIB
    simulated = patterns.seen(pages_of(parts, size), size, "simulated").touched(block)
    assert patterns.stated(text).touched(block) == pytest.approx(simulated, rel=0.1)


def test_one_percent_of_single_pages_touches_15_percent_of_64_kib_and_72_of_512() -> None:
    pattern = patterns.stated("1%:4KiB")
    assert round(pattern.touched(64 * 1024), 2) == 0.15
    assert round(pattern.touched(512 * 1024), 2) == 0.72


@pytest.mark.parametrize("text", ["", "1%", "1:4KiB", "0%:4KiB", "1%:512", "60%:4KiB+60%:1MiB", "1%:4KiB+"])
def test_a_pattern_that_makes_no_sense_is_a_usage_error(text: str) -> None:
    with pytest.raises(Usage):
        patterns.stated(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("1Gbit", 125e6), ("100Mbit/s", 12.5e6), ("2.5gbit", 312.5e6)]
)
def test_link_speeds_are_bits(text: str, expected: float) -> None:
    assert tune.parse_link(text) == expected


@pytest.mark.parametrize("text", ["1G", "1Gbyte", "0Mbit", "-1Gbit", ""])
def test_a_link_speed_without_its_unit_is_a_usage_error(text: str) -> None:
    with pytest.raises(Usage):
        tune.parse_link(text)


def measured(**changed: float) -> Rates:
    figures = {"read": 1e9, "scan": 1e9, "hash": 2e10, "compare": 2e10, "write": 1e9} | changed
    return Rates(**figures)  # type: ignore[arg-type]


def advise(text: str, link: float | None) -> int:
    pattern = patterns.stated(text)
    rows = tuple(tune.weigh(block, measured(), 100 * GIB, pattern, link) for block in tune.BLOCK_SIZES)
    return tune.recommend(rows).block_size


def test_scattered_changes_over_a_slow_link_want_small_blocks_and_large_runs_want_larger_ones() -> None:
    assert advise("5%:4KiB", 1e6) < advise("5%:1MiB", 1e6)


def test_few_scattered_changes_over_a_slow_link_make_digests_the_larger_part() -> None:
    # 100 GiB in 4 KiB blocks are 400 MiB of digests, for 10 MiB of changes.
    assert advise("0.01%:4KiB", 1e6) > 16 * 1024


def test_a_row_counts_digests_as_sent_only_where_there_is_a_link() -> None:
    pattern = patterns.stated("1%:4KiB")
    here = tune.weigh(65536, measured(), GIB, pattern, None)
    there = tune.weigh(65536, measured(), GIB, pattern, 1e8)
    assert here.digest_memory == there.digest_memory == GIB // 65536 * 16
    assert there.sent - here.sent == here.digest_memory
    assert here.amplification == pytest.approx(here.sent / (GIB * 0.01))


def test_pages_that_change_between_two_readings_are_seen(image: Image) -> None:
    source = image("source", 20 * MIB + 5000)

    def write() -> None:
        with source.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"changed", 9 * MIB)
            os.pwrite(file.fileno(), b"changed", 20 * MIB + 4990)

    with devices.open_source(devices.measure(source), direct=False) as opened:
        timer = threading.Timer(0.3, write)
        timer.start()
        found = watch.changed_pages(opened, 1.0, Stop())
        timer.join()
    flags = np.unpackbits(np.frombuffer(found.bits, np.uint8), bitorder="little")
    assert np.flatnonzero(flags).tolist() == [9 * MIB // 4096, 20 * MIB // 4096 + 1]
    assert found.size == 20 * MIB + 5000


def test_a_device_larger_than_what_is_watched_is_sampled_evenly(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCHED", 8 * MIB)
    source = image("source", 32 * MIB)
    with devices.open_source(devices.measure(source), direct=False) as opened:
        assert watch.changed_pages(opened, 0.0, Stop()).size == 8 * MIB


def test_where_nothing_changes_a_pattern_is_assumed_and_a_note_says_so(image: Image, tmp_path: Path) -> None:
    result = tune.run(TuneRequest(source=image("source", MIB), target=tmp_path / "target", interval=0))
    assert result.pattern == tune.ASSUMED
    assert "nothing changed" in result.notes[0]


def test_without_permission_the_target_is_not_written_and_no_file_is_left(image: Image) -> None:
    source, target = image("source", MIB), image("target", MIB)
    before = target.stat().st_mtime_ns, target.read_bytes()
    result = tune.run(TuneRequest(source=source, target=target, dirty="1%:4KiB"))
    assert all(row.rates.write for row in result.rows)
    assert (target.stat().st_mtime_ns, target.read_bytes()) == before
    assert sorted(path.name for path in source.parent.iterdir()) == ["source", "target"]


def sectors_written(device: Path) -> int:
    """As the kernel counts them (Documentation/block/stat.rst, the seventh field)."""
    return int(Path(f"/sys/class/block/{device.name}/stat").read_text().split()[6])


def test_rewriting_leaves_every_byte_of_a_block_device_as_it_was(image: Image, loop: Attach) -> None:
    source, backing = image("source", 8 * MIB), image("target", 10 * MIB)
    before = backing.read_bytes()
    device = loop(backing)
    written = sectors_written(device)
    result = tune.run(
        TuneRequest(source=source, target=device, target_offset=MIB, dirty="1%:4KiB", rewrite=True)
    )
    assert all(row.rates.write for row in result.rows)
    assert sectors_written(device) > written
    assert backing.read_bytes() == before


def test_a_block_device_is_not_written_without_permission(image: Image, loop: Attach) -> None:
    source, device = image("source", MIB), loop(image("target", MIB))
    written = sectors_written(device)
    result = tune.run(TuneRequest(source=source, target=device, dirty="1%:4KiB"))
    assert all(row.rates.write is None for row in result.rows)
    assert "--rewrite" in result.notes[0]
    assert sectors_written(device) == written


def test_rewriting_is_refused_where_a_pass_would_be(image: Image, loop: Attach) -> None:
    source, backing = image("source", MIB), image("target", MIB)
    loop(backing)
    with pytest.raises(Refused):
        tune.run(TuneRequest(source=source, target=backing, dirty="1%:4KiB", rewrite=True))
    with pytest.raises(Refused):
        tune.run(TuneRequest(source=source, target=source, dirty="1%:4KiB", rewrite=True))


def test_an_empty_source_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    with pytest.raises(Usage):
        tune.run(TuneRequest(source=tmp_path / "source", target=tmp_path / "target"))


def test_a_request_to_stop_ends_the_watch(image: Image) -> None:
    stop = Stop()
    threading.Timer(0.2, stop._asked, (15, None)).start()
    with (
        devices.open_source(devices.measure(image("source", MIB)), direct=False) as opened,
        pytest.raises(Interrupted),
    ):
        watch.changed_pages(opened, 60.0, stop)


def test_the_command_prints_one_json_object_or_a_table_with_its_advice(image: Image, tmp_path: Path) -> None:
    # A source of one small block keeps the real measurements short.
    source, target = image("source", 4096), tmp_path / "target"
    command = [Path(sys.executable).with_name("blocksync"), "tune", source, target, "--dirty", "50%:4KiB"]
    found = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    assert found["block_size"] == 4096
    assert [row["block_size"] for row in found["rows"]] == [4096]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "recommended: --block-size 4KiB: digests take 16 B" in text
