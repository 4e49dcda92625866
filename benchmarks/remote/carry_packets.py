"""The wire between two TUN devices: `carry_packets.py DEVICE DEVICE SECONDS`.

Reads packets from either descriptor and writes each to the other one after it was held for so long.
"""

import os
import select
import sys
import time
from collections import deque

LARGEST = 65536


def carry(ends: tuple[int, int], seconds: float) -> None:
    """Carry packets until the process ends."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    held: deque[tuple[float, int, bytes]] = deque()
    poll = select.poll()
    for end in ends:
        os.set_blocking(end, False)
        poll.register(end, select.POLLIN)
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) * 1000 if held else None
        for end, _ in poll.poll(wait):
            _take(end, other[end], time.monotonic() + seconds, held)
        now = time.monotonic()
        while held and held[0][0] <= now:
            _, end, packet = held.popleft()
            os.write(end, packet)


def _take(end: int, other: int, due: float, held: deque[tuple[float, int, bytes]]) -> None:
    """Take in every packet that waits."""
    try:
        while True:
            held.append((due, other, os.read(end, LARGEST)))
    except BlockingIOError:
        return


if __name__ == "__main__":
    # A wire does not wait for a processor.
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    carry((int(sys.argv[1]), int(sys.argv[2])), float(sys.argv[3]))
