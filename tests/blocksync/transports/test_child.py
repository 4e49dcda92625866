import time
from concurrent.futures import ThreadPoolExecutor
from subprocess import Popen

import pytest

from blocksync.transports.child import ChildChannel, ended


def test_all_who_wait_for_a_child_are_told_of_its_end() -> None:
    # Popen gives up at once where another thread is just asking the kernel: rare in one round.
    with ThreadPoolExecutor(4) as pool:
        for _ in range(200):
            channel = ChildChannel(["sh", "-c", "read line; exit 3"])
            waits = [pool.submit(channel.wait, 10) for _ in range(4)]
            channel.stdin.close()
            assert [wait.result() for wait in waits] == [3] * 4
            channel.close()


def test_a_child_that_runs_on_is_not_waited_for_beyond_the_limit() -> None:
    channel = ChildChannel(["cat"])
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"still runs after 0\.2 s"):
        channel.wait(0.2)
    assert 0.2 <= time.monotonic() - started < 2
    channel.close()
    assert channel.wait(0) == 0


def test_a_child_that_was_waited_for_has_its_status_kept() -> None:
    with Popen(["false"]) as process:
        assert [ended(process, 5) for _ in range(2)] == [1, 1]
