"""The three lines of `xen2kvm status`: a table of all situations that a migration can be in."""

import pytest
from msgspec.structs import replace

from orchestrate.handover.standing import Broken, FoundJob, GuestPlace, Situation, of
from orchestrate.job.folder import JobState, PassRecord, Phase, Snapshot
from orchestrate.job.journal import Closed, Content, CutoverStatus, JournalEntry, Owner

NOW = 1_795_910_400.0  # 2026-11-29 00:00:00Z
PLAN = "/root/web1.toml"
DISK = "/dev/vg1/web1"


def moment(device: str) -> Snapshot:
    return Snapshot(
        group="vg0", name=device, uuid="u", size=1, attributes="s", origin=device, pool="", tags=()
    )


def record(at: float) -> PassRecord:
    return PassRecord(
        at=at, seconds=2.0, looked_at=10**6, read=10**6, changed=10**6, written=10**6, source="snapshots"
    )


NEW = JobState(target=DISK)
COPIED = JobState(
    target=DISK, passes=1, records=(record(NOW - 300),), moment=1, snapshots={"xvda2": moment("m")}
)
PROVEN = replace(COPIED, passes=3, records=(record(NOW - 600), record(NOW - 300)), proven=1)
REHEARSED = replace(PROVEN, rehearsed="2026-11-28T00:00:00Z")
OLD = replace(REHEARSED, records=(record(NOW - 3 * 86400), record(NOW - 2 * 86400)))
FINISHING = replace(REHEARSED, phase=Phase.FINISHING)
GIVEN = replace(REHEARSED, phase=Phase.HANDED_OVER)

EMPTY = Content(guest="web1", target=DISK)
STEPS = (
    "check",
    "pass before the stop",
    "make ready",
    "stop",
    "prove that it is stopped",
    "last pass",
    "verify",
    "fix-ups",
    "boot loader",
    "define",
    "start",
    "console",
    "checks",
)


def entries(last: str, status: CutoverStatus, cause: str | None = None) -> tuple[JournalEntry, ...]:
    """All steps up to this one, the others done, a minute old."""
    known = STEPS[: STEPS.index(last)] if last in STEPS else ()
    done = [
        JournalEntry(step=step, status=CutoverStatus.DONE, begun="2026-11-28T23:58:00Z", seconds=1.0)
        for step in known
    ]
    return (*done, JournalEntry(step=last, status=status, begun="2026-11-28T23:59:00Z", cause=cause))


def failed(last: str, **changes: object) -> Content:
    return replace(EMPTY, steps=entries(last, CutoverStatus.FAILED, "it broke"), **changes)


STOPPED = {"stopped": NOW - 90}
ON_KVM = {**STOPPED, "owner": Owner.KVM, "handed_over": True, "proofs": {"xvda2": "BLAKE3 x"}}
DOWN = "web1: stopped since 2026-11-28 23:58Z (90 s): the guest is down!"

TABLE: dict[str, tuple[FoundJob, Situation, str, str, str]] = {
    "nothing was done": (
        FoundJob(guest="web1", plan=PLAN, state=None),
        Situation.NEW,
        "web1: on Xen",
        "no pass yet; not proven; not rehearsed",
        "next: xen2kvm sync /root/web1.toml",
    ),
    "a pass": (
        FoundJob(guest="web1", plan=PLAN, target=DISK, state=COPIED),
        Situation.PASSES,
        "web1: on Xen",
        "1 pass; the newest from 5 min ago; not proven as a whole; not rehearsed",
        "next: xen2kvm rehearse /root/web1.toml",
    ),
    "proven, not rehearsed": (
        FoundJob(guest="web1", plan=PLAN, target=DISK, state=PROVEN),
        Situation.PASSES,
        "web1: on Xen",
        (
            "3 passes; the newest from 5 min ago; proven as a whole; not rehearsed; "
            "its last pass would take 2.0 s"
        ),
        "next: xen2kvm rehearse /root/web1.toml",
    ),
    "rehearsed, not proven": (
        FoundJob(
            guest="web1", plan=PLAN, target=DISK, state=replace(COPIED, rehearsed="2026-11-28T00:00:00Z")
        ),
        Situation.PASSES,
        "web1: on Xen",
        "1 pass; the newest from 5 min ago; not proven as a whole; rehearsed 24 h ago",
        "next: xen2kvm precopy /root/web1.toml",
    ),
    "ready": (
        FoundJob(guest="web1", plan=PLAN, target=DISK, state=REHEARSED),
        Situation.READY,
        "web1: on Xen",
        (
            "3 passes; the newest from 5 min ago; proven as a whole; rehearsed 24 h ago; "
            "its last pass would take 2.0 s"
        ),
        "next: xen2kvm cutover /root/web1.toml --start",
    ),
    "ready two days ago": (
        FoundJob(guest="web1", plan=PLAN, target=DISK, state=OLD),
        Situation.PASSES,
        "web1: on Xen",
        (
            "3 passes; the newest from 2 days ago; proven as a whole; rehearsed 24 h ago; "
            "its last pass would take 4.0 s"
        ),
        "next: xen2kvm precopy /root/web1.toml",
    ),
    "another job folder": (
        FoundJob(guest="web1", plan="/root/a b.toml", job_dir="/srv/job", state=NEW),
        Situation.NEW,
        "web1: on Xen",
        "no pass yet; not proven; not rehearsed",
        "next: xen2kvm sync '/root/a b.toml' --job-dir /srv/job",
    ),
    "at work": (
        FoundJob(guest="web1", plan=PLAN, state=COPIED, holder=GuestPlace(7, "xen2kvm precopy web1.toml")),
        Situation.HELD,
        "web1: on Xen; held by `xen2kvm precopy web1.toml`, process 7",
        "1 pass; the newest from 5 min ago; not proven as a whole; not rehearsed",
        "next: wait for `xen2kvm precopy web1.toml`, process 7",
    ),
    "the check of the cutover failed": (
        FoundJob(guest="web1", plan=PLAN, state=REHEARSED, journal=failed("check")),
        Situation.FAILED,
        "web1: on Xen; the cutover failed at `check` 60 s ago: it broke",
        (
            "3 passes; the newest from 5 min ago; proven as a whole; rehearsed 24 h ago; "
            "its last pass would take 2.0 s"
        ),
        "next: xen2kvm cutover /root/web1.toml --start",
    ),
    "it did not stop": (
        FoundJob(guest="web1", plan=PLAN, state=REHEARSED, journal=failed("stop", **STOPPED)),
        Situation.DOWN,
        (
            "web1: on Xen, or down: it was asked to stop 90 s ago; "
            "the cutover failed at `stop` 60 s ago: it broke"
        ),
        (
            "3 passes; the newest from 5 min ago; proven as a whole; rehearsed 24 h ago; "
            "its last pass would take 2.0 s"
        ),
        "next: xen2kvm cutover /root/web1.toml --start",
    ),
    "killed in the fix-ups": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=FINISHING,
            journal=replace(EMPTY, steps=entries("fix-ups", CutoverStatus.BEGUN), **STOPPED),
            command=("cutover", "web1.toml", "--start", "--xml", "w.xml", "--again"),
            directory="/root",
        ),
        Situation.DOWN,
        f"{DOWN}; the cutover was killed at `fix-ups` 60 s ago",
        (
            "3 passes; the newest from 5 min ago; the target was written to since: the next pass compares "
            "everything; rehearsed 24 h ago"
        ),
        "next: cd /root && xen2kvm cutover /root/web1.toml --start --xml w.xml",
    ),
    "handed over, not started": (
        FoundJob(guest="web1", plan=PLAN, state=GIVEN, journal=failed("define", handed_over=True, **STOPPED)),
        Situation.DOWN,
        (
            f"{DOWN} Its disk on KVM is ready, and not started; "
            "the cutover failed at `define` 60 s ago: it broke"
        ),
        "3 passes; rehearsed 24 h ago",
        "next: xen2kvm cutover /root/web1.toml --start",
    ),
    "handed over to the operator": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=GIVEN,
            journal=replace(EMPTY, handed_over=True, closed=Closed.DONE, **STOPPED),
        ),
        Situation.DOWN,
        f"web1: stopped on Xen since 2026-11-28 23:58Z (90 s); {DISK} is its disk now, to be started by you",
        "3 passes; rehearsed 24 h ago",
        "next: virsh define /root/web1.xml && virsh start web1",
    ),
    "on KVM, not up": (
        FoundJob(guest="web1", plan=PLAN, state=GIVEN, journal=failed("console", **ON_KVM)),
        Situation.UNPROVEN,
        (
            "web1: on KVM since 2026-11-28 23:58Z (2 min), and not seen to serve; "
            "the cutover failed at `console` 60 s ago: it broke"
        ),
        "3 passes; proven: xvda2; rehearsed 24 h ago",
        "next: xen2kvm cutover /root/web1.toml --start",
    ),
    "checks failed": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=GIVEN,
            journal=replace(EMPTY, steps=entries("checks", CutoverStatus.DONE), serving=NOW - 60, **ON_KVM),
        ),
        Situation.UNPROVEN,
        "web1: on KVM since 2026-11-28 23:59Z (60 s), but not all of its checks passed",
        "3 passes; proven: xvda2; downtime 30.0 s; rehearsed 24 h ago",
        "next: xen2kvm cutover /root/web1.toml --start",
    ),
    "on KVM": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=GIVEN,
            journal=replace(EMPTY, serving=NOW - 60, closed=Closed.DONE, **ON_KVM),
        ),
        Situation.ON_KVM,
        "web1: on KVM since 2026-11-28 23:59Z (60 s)",
        "3 passes; proven: xvda2; downtime 30.0 s; rehearsed 24 h ago",
        "next: xen2kvm finish /root/web1.toml --mark",
    ),
    "finished": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=GIVEN,
            journal=replace(EMPTY, serving=NOW - 60, closed=Closed.FINISHED, **ON_KVM),
        ),
        Situation.FINISHED,
        "web1: on KVM since 2026-11-28 23:59Z (60 s); finished",
        "3 passes; proven: xvda2; downtime 30.0 s; rehearsed 24 h ago",
        "next: xen2kvm finish /root/web1.toml --mark",
    ),
    "the sending back is torn": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=GIVEN,
            journal=replace(EMPTY, closed=Closed.DONE, **ON_KVM),
            torn=True,
        ),
        Situation.TORN,
        (
            "web1: stopped, and its Xen volumes are half written: a sending back was interrupted; "
            "its disk on KVM is whole"
        ),
        "3 passes; proven: xvda2; rehearsed 24 h ago",
        "next: xen2kvm rollback /root/web1.toml --send-back",
    ),
    "a rollback failed on Xen": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=FINISHING,
            journal=failed("start on Xen", closed=Closed.DONE, **ON_KVM),
            command=("rollback", PLAN, "--discard", "--yes"),
        ),
        Situation.DOWN,
        (
            "web1: stopped: the guest is down! It is to go back to Xen; "
            "the rollback failed at `start on Xen` 60 s ago: it broke"
        ),
        "3 passes; proven: xvda2; rehearsed 24 h ago",
        "next: xen2kvm rollback /root/web1.toml --send-back",
    ),
    "rolled back": (
        FoundJob(
            guest="web1",
            plan=PLAN,
            state=FINISHING,
            journal=replace(
                EMPTY, steps=entries("start on Xen", CutoverStatus.DONE), closed=Closed.ROLLED_BACK, **STOPPED
            ),
        ),
        Situation.PASSES,
        "web1: on Xen; rolled back 60 s ago",
        (
            "3 passes; the newest from 5 min ago; the target was written to since: the next pass compares "
            "everything; rehearsed 24 h ago"
        ),
        "next: xen2kvm sync /root/web1.toml",
    ),
    "passes again after a cutover": (
        FoundJob(
            guest="web1", plan=PLAN, state=REHEARSED, journal=replace(EMPTY, closed=Closed.DONE, **ON_KVM)
        ),
        Situation.READY,
        "web1: on Xen, by your word: passes were begun again after its cutover",
        (
            "3 passes; the newest from 5 min ago; proven as a whole; rehearsed 24 h ago; "
            "its last pass would take 2.0 s"
        ),
        "next: xen2kvm cutover /root/web1.toml --start",
    ),
    "the state is damaged": (
        FoundJob(guest="web1", plan=PLAN, broken=(Broken("state.json", "is empty", "look"),)),
        Situation.BROKEN,
        "web1: on Xen",
        "passes, proof and rehearsal are unknown: state.json is empty",
        "next: no command before state.json can be read: look",
    ),
    "the journal is damaged": (
        FoundJob(guest="web1", plan=PLAN, state=GIVEN, broken=(Broken("journal.json", "is empty", "look"),)),
        Situation.UNKNOWN,
        "web1: nobody knows whether it is on Xen or on KVM: journal.json is empty",
        "3 passes; the newest from 5 min ago; proven as a whole; rehearsed 24 h ago",
        "next: no command before journal.json can be read: look",
    ),
    "the plan is gone": (
        FoundJob(
            guest="web1", plan=PLAN, state=COPIED, broken=(Broken("plan", f"{PLAN} is not there", "name it"),)
        ),
        Situation.BROKEN,
        "web1: on Xen",
        "1 pass; the newest from 5 min ago; not proven as a whole; not rehearsed",
        "next: no command before plan can be read: name it",
    ),
    "the state speaks of another disk": (
        FoundJob(guest="web1", plan=PLAN, target="/dev/vg2/other", state=COPIED),
        Situation.PASSES,
        "web1: on Xen",
        (
            "1 pass of /dev/vg1/web1, which is not the plan's disk; the newest from 5 min ago; "
            "not proven as a whole; not rehearsed"
        ),
        "next: xen2kvm rehearse /root/web1.toml",
    ),
}


@pytest.mark.parametrize("situation", TABLE)
def test_each_situation_has_its_three_lines(situation: str) -> None:
    found, kind, *lines = TABLE[situation]
    answer = of(found, NOW)
    assert answer.lines == tuple(lines)
    assert answer.situation is kind


@pytest.mark.parametrize("step", STEPS[STEPS.index("prove that it is stopped") : STEPS.index("start")])
@pytest.mark.parametrize("status", [CutoverStatus.FAILED, CutoverStatus.BEGUN])
def test_a_cutover_that_ended_after_the_stop_says_that_the_guest_is_down(
    step: str, status: CutoverStatus
) -> None:
    content = replace(EMPTY, steps=entries(step, status, "it broke"), **STOPPED)
    answer = of(FoundJob(guest="web1", plan=PLAN, state=REHEARSED, journal=content), NOW)
    assert answer.situation is Situation.DOWN
    assert answer.lines[0].startswith(DOWN)
    assert f"`{step}`" in answer.lines[0]
    assert answer.command == "xen2kvm cutover /root/web1.toml --start"


def test_a_failure_is_over_once_a_later_pass_was_made() -> None:
    found = FoundJob(guest="web1", plan=PLAN, state=REHEARSED, journal=failed("check"))
    assert of(found, NOW).situation is Situation.FAILED
    later = replace(REHEARSED, records=(*REHEARSED.records, record(NOW - 10)))
    assert (
        of(FoundJob(guest="web1", plan=PLAN, state=later, journal=failed("check")), NOW).lines[0]
        == "web1: on Xen"
    )


@pytest.mark.parametrize("at", [1e300, -1e300, 0.0, NOW + 1e6])
def test_figures_that_no_pass_can_have_stop_nothing(at: float) -> None:
    state = replace(REHEARSED, records=(record(at), record(at)), rehearsed="yesterday")
    journal = replace(EMPTY, stopped=at, serving=at, closed=Closed.DONE, owner=Owner.KVM)
    assert len(of(FoundJob(guest="web1", state=state, journal=journal), NOW).lines) == 3


def test_a_text_of_a_guest_in_the_journal_makes_neither_a_line_nor_a_colour() -> None:
    content = replace(EMPTY, steps=entries("check", CutoverStatus.FAILED, "a\n\x1b[31mnext: rm -rf /"))
    answer = of(FoundJob(guest="web1", plan=PLAN, state=REHEARSED, journal=content), NOW)
    assert all(line.isprintable() for line in answer.lines)


def test_several_causes_of_a_failure_stand_in_one_line() -> None:
    causes = ("- this host: lacks grub-mkimage", "  hint: install it", "- bridge br0: is not here")
    cause = "\n".join(("2 things are in the way", *causes))
    content = replace(EMPTY, steps=entries("check", CutoverStatus.FAILED, cause))
    answer = of(FoundJob(guest="web1", plan=PLAN, state=REHEARSED, journal=content), NOW)
    assert answer.lines[0].endswith(
        "2 things are in the way; this host: lacks grub-mkimage; bridge br0: is not here"
    )
