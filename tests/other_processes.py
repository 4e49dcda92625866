"""Processes beside a test that hold something while it looks."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def another_process(code: str, path: Path, *before: str) -> Iterator[int]:
    """A process that runs `code` with the path as its argument, then waits. Gives its number."""
    argv = [
        *before,
        sys.executable,
        "-c",
        f"import fcntl, os, sys\n{code}\nprint(flush=True)\nsys.stdin.read()",
    ]
    with subprocess.Popen([*argv, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child.pid
        finally:
            child.kill()
