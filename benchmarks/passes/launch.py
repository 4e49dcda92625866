"""A small process that starts what is measured: `launch.py REPORT PROGRAM [ARGUMENT ...]`.

The kernel counts what a process had in memory before it called exec, so a child of a large process never
shows less than its parent. This one imports next to nothing, which makes about 10 MB the least it can tell.
"""

import os
import sys
import time


def launch(report: str, argv: list[str]) -> int:
    """Run a command, write "SECONDS PEAK_BYTES" to `report`, and return its exit status."""
    started = time.perf_counter()
    child = os.posix_spawnp(argv[0], argv, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    with open(report, "w") as file:  # noqa: PTH123
        file.write(f"{seconds} {usage.ru_maxrss * 1024}")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1], sys.argv[2:]))
