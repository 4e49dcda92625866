"""Waiting for what a domain's serial console says, in the file that libvirt logs it to."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blocksync.errors import Failed
from orchestrate.kvm.machine import FATAL

_POLL_SECONDS = 0.2
_ALIVE_SECONDS = 5.0
_LINES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ConsoleLog:
    """A console's log file and where the present start begins in it, in bytes."""

    path: Path
    start: int

    def wait_for(self, pattern: str, seconds: float, alive: Callable[[], bool]) -> None:
        """Wait until the regular expression comes. `alive` says whether the domain still runs.

        Raises `Failed`, with the last lines, when it does not come in time, the domain ends, or something
        comes after which a boot does not go on.
        """
        deadline = time.monotonic() + seconds
        ask_again = time.monotonic() + _ALIVE_SECONDS
        while True:
            said = self._said()
            if re.search(pattern.encode(), said):
                return
            for sign in FATAL:
                if re.search(sign.pattern.encode(), said):
                    raise self._failed(sign.meaning, sign.way_out)
            if time.monotonic() > deadline:
                raise self._failed(f"{pattern!r} did not come within {seconds:g} s", "look at the guest")
            if time.monotonic() > ask_again:
                if not alive():
                    raise self._failed(f"the domain ended before {pattern!r} came", "look at its log")
                ask_again = time.monotonic() + _ALIVE_SECONDS
            time.sleep(_POLL_SECONDS)

    def _said(self) -> bytes:
        try:
            with self.path.open("rb") as log:
                # The log is begun anew when it has grown too large.
                log.seek(self.start if self.path.stat().st_size >= self.start else 0)
                return log.read()
        except FileNotFoundError:
            return b""

    def _failed(self, cause: str, way_out: str) -> Failed:
        lines = [line for line in self._said().decode(errors="replace").splitlines() if line.strip()]
        tail = "\n".join(f"    {line}" for line in lines[-_LINES_SHOWN:]) or "    (nothing)"
        return Failed(self.path, f"{cause}\n  last lines of the console:\n{tail}", way_out)
