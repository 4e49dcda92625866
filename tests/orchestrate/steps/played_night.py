"""A command of the night as a process of its own, killed where its test says: real file systems, a real
libvirt, and a played Xen host that outlives each command and remembers whether it ever met the guest on KVM.

    python played_night.py FOLDER PLAN sync|cutover|rollback [begin|end|note|cut WHAT]
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from played_xen import GROUP, PlayedSource, PlayedXen
from xl_double import GUEST

from blocksync.errors import BlocksyncError
from blocksync.hosts.host import ThisHost
from orchestrate.commands import show
from orchestrate.copying import passes
from orchestrate.copying.passes import SyncRequest
from orchestrate.fencing import SideAnswer
from orchestrate.handover import preflight
from orchestrate.job import folder as jobs
from orchestrate.job import journal as journals
from orchestrate.job.stopwatch import Stopwatch
from orchestrate.kvm.libvirt import Libvirt
from orchestrate.plan import file as plan_file
from orchestrate.steps import cutover, rollback
from orchestrate.steps.cutover import CutoverRequest
from orchestrate.steps.rollback import RollbackRequest
from orchestrate.xen import toolstack

CONFIG = f"/etc/xen/{GUEST}.cfg"
# The host is asked about several volumes at once.
_ONE_AT_A_TIME = threading.Lock()
LISTING = "Name ID Mem VCPUs State Time(s)\n"


class LastingXen(PlayedXen):
    """A played host with a toolstack, kept in a file after each thing that it does."""

    starts = 0
    met = False

    @property
    def _kept(self) -> Path:
        return self.folder.parent / "host.pickle"

    def step(self, work):
        with _ONE_AT_A_TIME:
            done = super().step(work)
            self.keep()
            return done

    def keep(self) -> None:
        new = self._kept.with_suffix(".new")
        new.write_bytes(pickle.dumps(self))
        new.rename(self._kept)

    def _answer(self, argv: list[str]) -> tuple[int, bytes]:
        if argv[0] in {"stat", "blkid"}:
            done = ThisHost().run([*argv[:-1], str(self.file(argv[-1]))])
            return done.status, done.output
        return super()._answer(argv)

    def _shell(self, argv: list[str]) -> tuple[int, bytes]:
        script, words = argv[2], argv[4:]
        if not script.startswith(toolstack._PATH):
            return super()._shell(argv)
        listing = LISTING + (f"{GUEST} 3 64 1 -b---- 10.0\n" if self.running else "")
        answers = {
            toolstack._FIND: f"xl\n{listing}",
            'exec "$1" list': listing,
            toolstack._RESULT: "0\n",
            toolstack._HOLDERS: "\nmounts\nbackends\n",
            toolstack._AUTOSTART: "",
        }
        script = script.removeprefix(toolstack._PATH)
        if script in answers:
            return 0, answers[script].encode()
        self._act(script, words)
        return 0, b""

    def _act(self, script: str, words: Sequence[str]) -> None:
        if script == toolstack._BEGIN:
            self.starts += 1
            self.met |= self.running or runs_on_kvm()
            self.running = True
        elif 'exec "$1" shutdown' in script:
            self.running = False
        elif script != toolstack._WAIT:
            raise ValueError(f"the played toolstack knows nothing of {script!r} {words}")


def kept_in(folder: Path) -> LastingXen:
    """The host as it stands."""
    host = pickle.loads((folder / "host.pickle").read_bytes())
    assert isinstance(host, LastingXen)
    return host


def runs_on_kvm() -> bool:
    libvirt = Libvirt()
    return libvirt.is_defined(GUEST) and libvirt.state(GUEST) not in ("shut off", "crashed")


def move_to_played_host(guest) -> None:
    """The small guest's volumes become those of a played host, its plan says so, and it has a check."""
    folder = guest.folder / "host"
    folder.mkdir()
    host = LastingXen(folder)
    for name, image in guest.volumes.items():
        host.add(name, image.read_bytes())
    host.keep()
    plan = tomlkit.parse(guest.plan.read_text())
    plan["xen_host"], plan["config"] = "played", CONFIG
    plan["boot"]["expect"] = "GRUB"
    for volume in plan["volume"]:
        volume["path"] = f"/dev/{GROUP}/{volume['device']}"
    guest.plan.write_text(tomlkit.dumps(plan) + '\n[[check]]\ncommand = ["true"]\n')


def night(guest, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command, as this module does."""
    command = [sys.executable, __file__, str(guest.folder), str(guest.plan), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _strikes(moment: str, what: str, blow: Callable[[], None]) -> None:
    """Strike as soon as the journal holds that a step has begun or was done, or that a field was noted."""
    told = getattr(journals.Journal, moment)

    def tell(self: journals.Journal, *step: Any, **changes: Any) -> None:
        told(self, *step, **changes)
        names = [each if isinstance(each, str) else each.name for each in step] + list(changes)
        if what in names:
            blow()

    setattr(journals.Journal, moment, tell)


def _quiet(_name: str):
    return lambda _progress: None


class _PullsThePlug:
    """GRUB does not hear the power button."""

    def accepts(self, risk: str) -> bool:
        raise NotImplementedError(risk)

    def when_it_stays(self, name: str, seconds: float) -> SideAnswer:
        del name, seconds
        return SideAnswer(destroy=True)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _main(folder: Path, plan: Path, command: str, moment: str = "", what: str = "") -> None:
    host = kept_in(folder)

    def cut() -> None:
        host.kill_at, host.cut = 0, True

    if moment:
        _strikes("begin" if moment == "cut" else moment, what, cut if moment == "cut" else _die)
    source = PlayedSource(host, lambda: None)
    with jobs.opened(plan_file.load(plan), folder / "job") as job:
        if command == "sync":
            passes.run(job, source, SyncRequest(), _quiet)
        elif command == "cutover":
            request = CutoverRequest(
                xml=folder / "guest.xml",
                start=True,
                accelerator="tcg",
                boot_timeout=120,
                overrides=preflight.GUARDS,
            )
            cutover.run(
                job,
                source,
                request,
                _quiet,
                Stopwatch(),
                keep=lambda report: plan_file.write(folder / "report.json", str(show.cutover_json(report))),
            )
        else:
            choice = RollbackRequest(discard=True, shutdown_timeout=1)
            rollback.run(job, source, choice, _quiet, Stopwatch(), asking=_PullsThePlug())


if __name__ == "__main__":
    # The class is the one that tests load, not this script's own.
    import played_night

    try:
        played_night._main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except BlocksyncError as error:
        sys.exit(str(error))
