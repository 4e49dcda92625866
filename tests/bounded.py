"""Python that is given something hostile, in a process of its own that has little memory and time."""

import resource
import subprocess
import sys
from pathlib import Path


def run(script: str, *arguments: object, memory: int = 1 << 30, seconds: float = 60.0) -> str:
    """What `script` prints, with at most `memory` bytes of address space. Fails when it fails."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=Path(__file__).parent,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
