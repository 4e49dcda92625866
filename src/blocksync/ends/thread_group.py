"""The threads of one end: the first failure stops them all, and the most telling one is reported."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from blocksync.errors import BlocksyncError, Failed
from blocksync.wire.link import Lost

# After a send that failed: how long to look for the other end's own word on why.
LAST_WORDS = 2.0
_GLANCE = 0.5


class Stopped(Exception):
    """Another thread failed; this one has nothing to report."""


class Crew:
    """Threads, and one condition that they all wait on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run `work` in a thread; what it raises is the crew's failure."""

        def run() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:
                self.fail(error)
            finally:
                self.notify()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def fail(self, error: BaseException) -> None:
        """Record a failure. A lost link gives way to any other: it may be what followed from that."""
        with self._changed:
            if self._failure is None or _tells_more(error, self._failure):
                self._failure = error
            self._changed.notify_all()

    def notify(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `predicate()` holds; its value at the end. Raises Stopped when the crew failed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not predicate():
                self.check()
                left = _GLANCE if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _GLANCE))
        return True

    def check(self) -> None:
        """Raises Stopped when the crew failed."""
        if self._failure is not None:
            raise Stopped

    def finish(self, finished: Callable[[], bool]) -> None:
        """Wait until `finished()` holds. Raises what failed: the other end's word on it, if there is one."""
        with suppress(Stopped):
            self.wait_for(finished)
            return
        with self._changed:
            self._changed.wait_for(self._is_heard_out, LAST_WORDS)
        if self.failure is not None:
            raise self.failure

    def _is_heard_out(self) -> bool:
        return not isinstance(self._failure, Lost) or self._failure.heard_out

    @property
    def failed(self) -> bool:
        return self._failure is not None

    @property
    def failure(self) -> BlocksyncError | None:
        """What failed. Anything that no user is meant to read is raised here."""
        if self._failure is None or isinstance(self._failure, BlocksyncError):
            return self._failure
        if isinstance(self._failure, MemoryError):
            return Failed("blocksync", "is out of memory", "free some, or use a larger block size")
        raise self._failure

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def _tells_more(error: BaseException, than: BaseException) -> bool:
    """Whether an error is closer to what happened: a send fails because of what listening finds out later."""
    if not isinstance(than, Lost):
        return False
    return not isinstance(error, Lost) or (error.heard_out and not than.heard_out)
