"""SIGINT, SIGTERM and SIGHUP ask a pass to stop at a safe point; they do not tear it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP comes when the session is closed in which the pass runs.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether somebody asked to stop, and by which signal, if it was one."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._is_asked = False

    def __bool__(self) -> bool:
        return self._is_asked or self.signal is not None

    def ask(self) -> None:
        """Ask to stop without a signal."""
        self._is_asked = True

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Note the first of these signals while entered. Outside the main thread, where Python handles no
    signals, none is.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._asked) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Let these signals wait until the block ends; the first of them then has its effect.

    For what an exception between any two steps would leave half done: a descriptor that was opened and given
    no name yet, a mount that nobody remembers. Blocking signals would not do: in a process with threads,
    another one takes them. Children that Ctrl-C on the terminal must not reach need a session of their own.
    """
    with stop_on_signals() as stop:
        yield
    if stop.signal is not None:
        signal.raise_signal(stop.signal)
