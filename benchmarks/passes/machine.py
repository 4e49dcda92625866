"""The machine that was measured, as far as it matters to the figures and no further: no names, no paths."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path

from benchmarks.passes.contenders import version

GIB = 2**30


def describe(folder: Path, programs: list[str]) -> list[tuple[str, str]]:
    """(what, value) rows: processor, cores, memory, kernel, file system of `folder`, load, date, versions."""
    rows = [
        ("processor", _processor()),
        ("cores", str(os.cpu_count())),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIB:.0f} GiB"),
        ("kernel", platform.release().partition("-")[0]),
        ("file system", _file_system(folder)),
        ("load before the run", f"{load():.1f} (idle is 0)"),
        ("date", datetime.now(UTC).strftime("%Y-%m-%d")),
        ("blocksync", f"{package_version('xen2kvm')} on Python {platform.python_version()}"),
    ]
    return rows + [(program, version(program)) for program in programs]


def load() -> float:
    """How many processes wanted a processor, on average over the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    argv = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
