"""Signals that wait until what they would tear is done."""

import os
import signal
import threading
import time

import pytest

from blocksync.interruption import held_back


def test_a_signal_waits_until_the_block_ends_whichever_thread_takes_it():
    ended = threading.Event()
    # A thread like those that read a transport's errors: it takes signals as well.
    other = threading.Thread(target=ended.wait)
    other.start()
    steps = []
    try:
        with pytest.raises(KeyboardInterrupt):
            with held_back():
                signal.pthread_kill(other.ident or 0, signal.SIGINT)
                time.sleep(0.05)
                steps.append("done")
            steps.append("went on")
    finally:
        ended.set()
        other.join()
    assert steps == ["done"]


def test_without_a_signal_the_block_is_as_any_other_and_handlers_are_back():
    before = signal.getsignal(signal.SIGINT)
    with held_back():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_signal_held_back_in_a_block_inside_another_waits_for_the_outer_one():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with held_back():
            with held_back():
                os.kill(os.getpid(), signal.SIGINT)
            steps.append("went on")
        steps.append("went on outside")
    assert steps == ["went on"]
