"""kill -9 of either end at seeded random moments: the job goes on, nothing outside the range is touched."""

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal

import pytest
from killed_jobs import Job, forked, wait_for
from played_links import PlayedTransport

from blocksync import remote
from blocksync.agent import installed
from blocksync.passes import PassRequest
from blocksync.wire.messages import Role

Victim = Literal["near", "far"]


class ReadyChannel:
    """A channel to a far end that runs already."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.stdout = FileIO(read_fd, "r")
        self.stdin = FileIO(write_fd, "w")

    def close(self) -> None:
        self.stdin.close()
        self.stdout.close()

    def wait(self, timeout: float | None) -> int:
        return 255

    def stderr_tail(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class ReadyTransport:
    channel: ReadyChannel

    def run(self, argv: Sequence[str]) -> ReadyChannel:
        return self.channel

    def close(self) -> None:
        return None

    def describe(self) -> str:
        return "the far host"


def two_processes(request: PassRequest, far: Role) -> dict[Victim, int]:
    """The two ends of a pass, each a process."""
    to_far, to_near = os.pipe(), os.pipe()

    def be_far() -> int:
        os.close(to_far[1])
        os.close(to_near[0])
        return int(installed.serve(to_far[0], to_near[1]))

    def be_near() -> int:
        os.close(to_far[0])
        os.close(to_near[1])
        with suppress(Exception):
            remote.run(request, far=far, transport=ReadyTransport(ReadyChannel(to_near[0], to_far[1])))
            return 0
        return 1

    ends: dict[Victim, int] = {"far": forked(be_far), "near": forked(be_near)}
    for fd in (*to_far, *to_near):
        os.close(fd)
    return ends


def kill_and_go_on(folder: Path, far: Role, points: int, seed: int) -> None:
    chance = random.Random(seed)
    job = Job(folder, chance)
    started = time.monotonic()
    for end in two_processes(job.request, far).values():
        wait_for(end)
    job.check_copied()
    longest = time.monotonic() - started
    for point in range(points):
        job.change()
        victim: Victim = chance.choice(["near", "far"])
        ends = two_processes(job.request, far)
        time.sleep(chance.random() * longest)
        os.kill(ends[victim], signal.SIGKILL)
        for end in ends.values():
            wait_for(end)
        job.check_around()
        if point % 3 == 0:
            # Now and then a pass goes on from what two kills have left.
            continue
        remote.run(job.request, far=far, transport=PlayedTransport())
        job.check_copied()


@pytest.mark.parametrize("far", ["source", "target"])
def test_a_pass_goes_on_after_either_end_was_killed(tmp_path: Path, far: Role) -> None:
    kill_and_go_on(tmp_path, far, points=50, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("far", ["source", "target"])
def test_a_pass_goes_on_after_either_end_was_killed_very_often(tmp_path: Path, far: Role, seed: int) -> None:
    kill_and_go_on(tmp_path, far, points=100, seed=seed)
