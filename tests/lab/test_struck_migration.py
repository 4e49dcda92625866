"""A migration whose commands are killed, and whose Xen host's cable is pulled, at one step after the other:
each time the same command goes on, the guest is never on both sides, and no record of its witness is lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from kvm_side import PATIENCE, KvmSide
from lab_places import GUEST
from xen_host import XenLab

pytestmark = pytest.mark.timeout(7200)

ON_XEN, STOPPED, ON_KVM = {"xen"}, set[str](), {"kvm"}
SWAP_AND_COPIED = 3


@dataclass(frozen=True, slots=True)
class Strike:
    """A SIGKILL as a step begins, or `after` seconds; or the Xen host's cable is `pulled` as it begins."""

    step: str
    the_guest_is: set[str]
    after: float = 0.0
    pulled: bool = False


CUTOVER = (
    Strike("check", ON_XEN),
    Strike("make ready", ON_XEN),
    Strike("stop", ON_XEN),
    Strike("prove that it is stopped", STOPPED),
    Strike("last pass", STOPPED, pulled=True),
    Strike("last pass", STOPPED, after=4),
    Strike("verify", STOPPED, pulled=True),
    Strike("fix-ups", STOPPED, after=0.1),
    # The target was written to: from here on each run compares it as a whole first.
    Strike("boot loader", STOPPED),
    Strike("define", STOPPED),
    Strike("start", STOPPED),
    Strike("console", ON_KVM),
    Strike("drop snapshots", ON_KVM, pulled=True),
    Strike("report", ON_KVM),
)
WAY_BACK = (
    Strike("undo the fix-ups", STOPPED),
    Strike("send the changes back", STOPPED, after=30),
    Strike("verify the Xen volumes", STOPPED, pulled=True),
    Strike("start on Xen", STOPPED),
    Strike("drop snapshots", ON_XEN),
)


def test_a_migration_struck_at_one_step_after_the_other_goes_on_and_comes_back(
    lab: XenLab, side: KvmSide, tmp_path: Path
) -> None:
    side.make_plan()
    assert_prepared(side.prepare())
    report = side.step("precopy", "--max-downtime", "2m")
    assert report["ready"]
    assert report["proofs"].keys() == {"xvda2", "xvda3"}

    struck(side, CUTOVER, "cutover", "--start", *PATIENCE)
    assert side.step("cutover", "--start", *PATIENCE)["started"]
    durable = side.assert_moved(tmp_path / "moved")

    struck(side, [Strike("stop on KVM", ON_KVM)], "rollback", "--send-back")
    # The lab's guest has no dbus, so no logind, and nobody in it who heeds a power button.
    side.power_off()
    struck(side, WAY_BACK, "rollback", "--send-back")
    assert side.step("rollback", "--send-back")["started"]
    side.assert_back(tmp_path / "back", durable)
    assert len(lab.shell("grep ^UUID= /etc/fstab", host=GUEST).splitlines()) == SWAP_AND_COPIED


def assert_prepared(said: Iterable[dict[str, str]]) -> None:
    """The lab's guest has its packages, and an initramfs with virtio: files alone are changed."""
    texts = {
        kind: [each["text"] for each in said if each["kind"] == kind] for kind in ("have", "did", "todo")
    }
    for there in ("can boot under KVM", "package grub-pc", "holds virtio_blk"):
        assert any(there in text for text in texts["have"]), said
    for changed in ("/etc/fstab: ", "/etc/default/grub: "):
        assert any(text.startswith(changed) for text in texts["did"]), said
    assert all("power button" in text for text in texts["todo"]), said


def struck(side: KvmSide, strikes: Iterable[Strike], command: str, *options: str) -> None:
    """Run a command again and again; each run gets as far as its strike, further than the one before."""
    for strike in strikes:
        if strike.pulled:
            side.cut_off(strike.step, command, *options)
        else:
            side.killed(strike.step, command, *options, after=strike.after)
        assert side.whereabouts() == strike.the_guest_is, strike
