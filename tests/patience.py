"""Wait for what another process does in its own time."""

import time
from collections.abc import Callable


def wait_for(true: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"not true within {seconds} s"
        time.sleep(0.02)
