"""Whether a moment's snapshots still hold what the guest overwrites, looked at while they are read.

By a thread of its own: a host that takes seconds to answer holds up no pass, and a pass that shows no
progress is watched as well.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from blocksync.errors import BlocksyncError, Failed
from blocksync.progress import Progress, Report
from orchestrate.copying.snapshot_sets import Moment, Moments

EVERY_SECONDS = 10.0


class SnapshotWatch:
    """Looks at a moment until it is ended, or the moment is lost."""

    def __init__(self, moments: Moments, moment: Moment) -> None:
        self._moments = moments
        self._moment = moment
        self._ended = threading.Event()
        self._lost: str | None = None

    def over(self, tasks: Callable[[str], Report]) -> Callable[[str], Report]:
        """The same tasks, which end a pass that reads from a moment that is lost."""

        def task(name: str) -> Report:
            report = tasks(name)

            def show(progress: Progress) -> None:
                report(progress)
                self.require()

            return show

        return task

    def require(self) -> None:
        """Raise `Failed` if the moment was seen to be lost."""
        if self._lost is not None:
            raise Failed(
                self._lost,
                "the guest wrote more during the pass than its snapshot can hold",
                "run the same command again in a quieter hour, or with --no-snapshots",
            )

    def look(self) -> None:
        """Look once. A host that does not answer is the pass's to tell."""
        with suppress(BlocksyncError):
            self._lost = self._lost or self._moments.lost(self._moment)

    def go_on_looking(self) -> None:
        """Look now and then."""
        while self._lost is None and not self._ended.wait(EVERY_SECONDS):
            self.look()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()


@contextmanager
def watched(moments: Moments, moment: Moment) -> Iterator[SnapshotWatch]:
    """Watch a moment meanwhile. A read error of a snapshot that is full is no broken disk, and says so."""
    watch = SnapshotWatch(moments, moment)
    thread = threading.Thread(target=watch.go_on_looking, name="overflow", daemon=True)
    thread.start()
    try:
        yield watch
    except Failed:
        watch.look()
        watch.require()
        raise
    finally:
        watch.end()
        thread.join()
