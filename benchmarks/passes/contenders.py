"""What is measured: a program with its arguments, timed as a whole process from start to exit."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OURS = Path(sys.executable).with_name("blocksync")
# How a program is asked for its version, and in which line it says it, where that is unusual.
_TELLING = {"bdsync": ("--help", 0), "socat": ("-V", 1)}
LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: seconds of wall clock, peak resident memory in bytes (about 10 MB is the least it shows)."""

    seconds: float
    peak: int
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One program on one pass.

    `program` is what has to be on PATH. `flushed` says whether the run ends only when its writes are
    durable. `reset` brings the images and the contender's own state back before each run. `figure` takes
    the program's own result, in seconds, from its output, where that is the fair figure (fio). `rated` says
    whether it looks at the whole image, so that a rate means something.
    """

    name: str
    program: str
    argv: tuple[str, ...]
    flushed: bool = True
    reset: Callable[[], None] = lambda: None
    figure: Callable[[str], float] | None = None
    rated: bool = True

    @property
    def present(self) -> bool:
        return shutil.which(self.program) is not None

    def run(self) -> Timing:
        timing = timed(self.argv)
        if self.figure is None:
            return timing
        return Timing(self.figure(timing.output), timing.peak)


def timed(argv: tuple[str, ...]) -> Timing:
    """Run a command to its end. Raises RuntimeError, with what it said, when it fails."""
    with tempfile.NamedTemporaryFile("r") as report:
        launched = (sys.executable, "-I", "-S", str(LAUNCHER), report.name, *argv)
        done = subprocess.run(launched, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}: {done.stderr.strip()}")
        seconds, peak = report.read().split()
    return Timing(float(seconds), int(peak), done.stdout)


def version(program: str) -> str:
    """The line that a program says about its version."""
    if shutil.which(program) is None:
        return "missing"
    option, number = _TELLING.get(program, ("--version", 0))
    argv = [program, option]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if program == "bdsync":
        return "present (it tells no version)"
    return lines[number].split(", Copyright")[0] if len(lines) > number else "present"
