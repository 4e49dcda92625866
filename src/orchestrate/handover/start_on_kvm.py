"""The guest's start on KVM: from a repaired target to a guest that serves."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from blocksync.errors import BlocksyncError
from orchestrate.fencing import KvmSide, XenSide
from orchestrate.handover import announce, checks
from orchestrate.handover.announce import Announcement
from orchestrate.handover.checks import Result
from orchestrate.job.folder import Job
from orchestrate.job.journal import Journal, MovedLink, Owner
from orchestrate.job.stopwatch import Stopwatch
from orchestrate.kvm.console_log import ConsoleLog
from orchestrate.plan.model import Check
from orchestrate.xen.toolstack import AutostartLink

_ADDRESS_SECONDS = 20.0
"""What an address has to answer in once the console says that the guest is up; then it is only missed."""


def console_log(job: Job) -> Path:
    """Where the domain's console is logged."""
    return job.folder / "consoles" / "kvm.log"


def start(job: Job, journal: Journal, xen: XenSide, kvm: KvmSide, *, domain: str, watch: Stopwatch) -> None:
    """Define and start the guest, if it does not run there; the owner is KVM from the moment before."""
    with watch.step("define"):
        kvm.require_ours()
        console_log(job).parent.mkdir(exist_ok=True)
        kvm.libvirt.define(domain)
    with watch.step("start"):
        xen.require_absent()
        if journal.content.owner is Owner.XEN:
            kvm.require_absent()
            move_autostart_away(journal, xen)
            log = console_log(job)
            begins = log.stat().st_size if log.exists() else 0
            journal.note(owner=Owner.KVM, console_from=begins)
        kvm.start()


def move_autostart_away(journal: Journal, xen: XenSide) -> None:
    """Take the links away that start the guest on Xen; they are in the journal first."""
    found = xen.autostart()
    known = {link.path for link in journal.content.autostart}
    new = tuple(MovedLink(path=link.path, target=link.target) for link in found if link.path not in known)
    if new:
        journal.note(autostart=(*journal.content.autostart, *new))
    if xen.tools is not None:
        xen.tools.unlink(found)


def put_autostart_back(journal: Journal, xen: XenSide) -> None:
    """Put the links of the journal back, on the Xen host."""
    if xen.tools is not None:
        xen.tools.link([AutostartLink(link.path, link.target) for link in journal.content.autostart])
        journal.note(autostart=())


def prove_serving(
    job: Job, journal: Journal, kvm: KvmSide, *, seconds: float, watch: Stopwatch
) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """Wait for the console and the addresses, announce these, run the checks; their results, and notes.

    Raises `Failed` if the guest does not come up within `seconds`; a check that fails is a result.
    """
    plan = job.plan
    with watch.step("console"):
        log = ConsoleLog(console_log(job), journal.content.console_from)
        log.wait_for(plan.boot.expect, seconds, kvm.runs, watch.tell)
    up = time.time()
    told = tuple(announce.announcements(plan.nic))
    # The checks do not wait for an address that is missing: the guest may serve without it.
    with _checking(plan.check) as results_of:
        with watch.step("address"):
            watch.tell("waiting for the guest's addresses to answer", _ADDRESS_SECONDS)
            notes = announce.missing(told, _ADDRESS_SECONDS)
        with watch.step("announce"):
            notes += _announced(told)
        with watch.step("checks"):
            results = results_of()
    passed = [result.passed for result in results if result.passed is not None]
    if journal.content.serving is None and (passed or not results):
        journal.note(serving=min(passed, default=up))
    with watch.step("autostart"):
        kvm.libvirt.autostart(plan.guest.name, on=True)
    return results, notes


def _announced(told: Sequence[Announcement]) -> tuple[str, ...]:
    notes = []
    for one in told:
        try:
            announce.send(one)
        except BlocksyncError as error:
            # The guest is up and speaks for itself: no reason to call the cutover a failure.
            notes.append(str(error))
    return tuple(notes)


@contextmanager
def _checking(wanted: Sequence[Check]) -> Iterator[Callable[[], tuple[Result, ...]]]:
    """Run the checks meanwhile; what is given waits for their results."""
    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        running = [pool.submit(checks.wait_for, check) for check in wanted]
        yield lambda: tuple(each.result() for each in running)
