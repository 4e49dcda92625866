"""Running commands on the host that has the volumes, be it this one."""

import subprocess
from collections.abc import Callable, Sequence

from blocksync.errors import Failed
from blocksync.foreign import shown_bytes
from blocksync.hosts import programs

MISSING = 127
"""What a shell says of a command that is not there."""

Run = Callable[[Sequence[str]], tuple[int, bytes]]
"""Runs argv, with nothing on its standard input. The exit status, and what it wrote on standard output;
after a failure, what it complained of. May raise Failed when the host is gone."""


def run_here(argv: Sequence[str]) -> tuple[int, bytes]:
    """A `Run` for this machine."""
    environment = programs.environment(LC_ALL="C")
    try:
        done = programs.run(
            list(argv), capture_output=True, stdin=subprocess.DEVNULL, env=environment, check=False
        )
    except FileNotFoundError:
        return MISSING, f"{argv[0]}: not found".encode()
    return done.returncode, done.stderr if done.returncode else done.stdout


def output_of(run: Run, argv: Sequence[str], way_out: str = "") -> str:
    """What a command printed. Raises Failed, with what it complained of, when it failed."""
    status, output = run(argv)
    if status:
        missing = f"install {argv[0]} on the host that has the volumes"
        cause = shown_bytes(output) or f"ended with status {status}"
        raise Failed(argv[0], cause, missing if status == MISSING else way_out)
    return output.decode(errors="replace")
