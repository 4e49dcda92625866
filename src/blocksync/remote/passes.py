"""One pass between two hosts, from the near end: the same request and report as a local pass."""

import time
from dataclasses import replace

from blocksync import passes
from blocksync.interruption import stop_on_signals
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Progress, Report
from blocksync.remote.far_end import FarEnd
from blocksync.remote.pull import Pull
from blocksync.remote.push import Push
from blocksync.remote.watching import PassWatch
from blocksync.transports.interface import Transport
from blocksync.wire.link import PATIENCE
from blocksync.wire.messages import Role


def run(
    request: PassRequest,
    *,
    far: Role,
    transport: Transport,
    name: str | None = None,
    progress: Report | None = None,
    patience: float = PATIENCE,
) -> PassReport:
    """Carry out one pass whose `far` end is on the host that `transport` reaches; its path is one there.

    Returns when the target is durable, on whichever host it is, and the digest file (on this host) committed.
    `name` is what the host is called for good, in errors and in the digest file. `patience` is for how many
    seconds nothing may be heard from the far end. `bytes_per_second` of the request bounds what is sent, in
    each direction.

    Raises Usage or Refused before anything is written; Failed when a device fails; Interrupted after SIGINT,
    SIGTERM or SIGHUP, and when the link is lost: the same request then goes on. A dry run, which has nothing
    to go on from, raises Lost.
    """
    started = time.monotonic()
    passes.check_options(request)
    with stop_on_signals() as stop:
        watch = PassWatch(stop, progress or _quiet, started)
        one = Pull.prepare(request) if far == "source" else Push.prepare(request)
        with FarEnd(transport, name or transport.describe(), patience=patience) as far_end:
            return carry_out(one, request, far_end, watch)


def carry_out(one: Pull | Push, request: PassRequest, far: FarEnd, watch: PassWatch) -> PassReport:
    """A pass that was prepared, with the hash that the far end has for it."""
    far.link.limit(request.bytes_per_second)
    return one.run(replace(request, hash=far.hash_for(request.hash)), far, watch)


def _quiet(progress: Progress) -> None:
    return None
