"""Jobs whose passes are killed, and go on; the processes that carry them out."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from blocksync.passes import PassRequest

MIB = 2**20
AROUND = 4096
SIZE = 12 * MIB + 777
LIMIT = 20.0


def forked(work: Callable[[], int]) -> int:
    """A child process that does some work; its id. Python is warm there."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        status = work()
    finally:
        os._exit(status)


def wait_for(child: int, limit: float = LIMIT) -> int:
    """The exit status of a process. Raises AssertionError when it hangs."""
    deadline = time.monotonic() + limit
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the end that was left hangs")
        time.sleep(0.002)


class Job:
    """A pass between two states of a source, to be killed and to go on."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.source = folder / "source"
        self.target = folder / "target"
        self.request = PassRequest(
            source=self.source, target=self.target, target_offset=AROUND, digests=folder / "digests"
        )
        self._chance = chance
        self._around = chance.randbytes(AROUND)
        self._data = bytearray(chance.randbytes(SIZE))
        self.source.write_bytes(self._data)
        self.target.write_bytes(self._around + bytes(SIZE) + self._around)

    def change(self) -> None:
        """Another state of the source: some runs are random, some zeros."""
        for _ in range(self._chance.randrange(1, 40)):
            length = self._chance.choice([1, 4096, 65536, MIB])
            at = self._chance.randrange(0, SIZE - length)
            zeros = self._chance.random() < 0.2
            self._data[at : at + length] = bytes(length) if zeros else self._chance.randbytes(length)
        self.source.write_bytes(self._data)

    def check_copied(self) -> None:
        held = self.target.read_bytes()
        assert held[AROUND : AROUND + SIZE] == self._data
        self.check_around()

    def check_around(self) -> None:
        held = self.target.read_bytes()
        assert (held[:AROUND], held[AROUND + SIZE :]) == (self._around, self._around)
