"""`xen2kvm`, struck as soon as its journal holds that a step has begun, or some seconds into the step.

    python struck.py STEP SECONDS MONITOR COMMAND ...

MONITOR is the socket of its Xen host's machine, whose cable is pulled; without one, SIGKILL ends the command.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from qemu_monitor import Monitor

from orchestrate import cli
from orchestrate.job import journal


def _strike(monitor: str) -> None:
    if monitor:
        with Monitor(Path(monitor)) as machine:
            machine.set_cable(plugged_in=False)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def _main(step: str, seconds: float, monitor: str) -> None:
    told = journal.Journal.begin

    def tell(self: journal.Journal, name: str) -> None:
        told(self, name)
        if name == step and seconds:
            threading.Timer(seconds, _strike, [monitor]).start()
        elif name == step:
            _strike(monitor)

    journal.Journal.begin = tell  # type: ignore[method-assign]
    cli.main()


if __name__ == "__main__":
    step, seconds, monitor = sys.argv[1:4]
    del sys.argv[1:4]
    _main(step, float(seconds), monitor)
