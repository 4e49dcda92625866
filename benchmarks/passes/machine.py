"""The machine that was measured, as far as it matters to the figures and no further: no names, no paths."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path

from benchmarks.passes.contenders import version

_LOOK_SECONDS = 3.0
GIB = 2**30


def describe(folder: Path, programs: list[str], busy: float) -> list[tuple[str, str]]:
    """Rows (what, value): processor, cores, memory, kernel, file system of `folder`, `busy`, versions."""
    rows = [
        ("processor", _processor()),
        ("cores", str(os.cpu_count())),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIB:.0f} GiB"),
        ("kernel", platform.release().partition("-")[0]),
        ("file system", _file_system(folder)),
        ("processors busy before the run", f"{busy:.1f}"),
        ("date", datetime.now(UTC).strftime("%Y-%m-%d")),
        ("blocksync", f"{package_version('xen2kvm')} on Python {platform.python_version()}"),
    ]
    return rows + [(program, version(program)) for program in programs]


def load() -> float:
    """How many processors others keep busy in some seconds before the run. What make did before, which
    the load average would count, is not theirs.
    """
    idle, whole = _processor_ticks()
    time.sleep(_LOOK_SECONDS)
    idle_after, whole_after = _processor_ticks()
    return (os.cpu_count() or 1) * (1 - (idle_after - idle) / (whole_after - whole))


def _processor_ticks() -> tuple[int, int]:
    """Of all processors (proc_stat(5)): what was idle or waited for a disk, and everything."""
    ticks = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return ticks[3] + ticks[4], sum(ticks)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    argv = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
