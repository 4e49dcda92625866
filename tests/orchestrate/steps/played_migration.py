"""A guest on a played Xen host, and the job that moves it."""

import random
from pathlib import Path

from played_xen import GROUP, PlayedSource, PlayedXen

from orchestrate.copying import passes
from orchestrate.copying.passes import SyncRequest
from orchestrate.job.folder import Job
from orchestrate.layout.table import TableKind
from orchestrate.plan.compose import UNKNOWN
from orchestrate.plan.model import Action, Boot, BootPlace, Disk, Guest, Place, Plan, Volume

MIB = 2**20
NAMES = ("root", "srv")


class Migration:
    """A guest of two volumes on a played host, with its job here."""

    def __init__(self, folder: Path, names: tuple[str, ...] = NAMES) -> None:
        self.random = random.Random(7)
        self.names = names
        host_folder = folder / "host"
        host_folder.mkdir(parents=True)
        (folder / "job").mkdir()
        self.host = PlayedXen(host_folder)
        for name in names:
            self.host.add(name, self.random.randbytes(MIB))
        self.job = Job(folder / "job", plan(folder / "target.raw", names))
        self.source = PlayedSource(self.host, self.guest_writes)
        self.writing = True

    def guest_writes(self) -> None:
        for name in self.names if self.writing else ():
            self.host.write(name, self.random.randrange(MIB - 9000), self.random.randbytes(9000))

    def sync(self, **options):
        return passes.run(self.job, self.source, SyncRequest(**options), quiet)

    def last_pass(self):
        self.writing = self.host.running = False
        return passes.last_pass(self.job, self.source, quiet)

    def revive(self) -> None:
        self.host.kill_at, self.host.kill_after, self.host.cut, self.host.steps = None, False, False, 0

    def on_target(self, name: str) -> bytes:
        place = next(each.partition for each in self.job.plan.volume if each.device == name)
        return self.job.plan.target.read_bytes()[place.offset : place.offset + MIB]

    def assert_equals_its_moment(self) -> None:
        """The target is the moment that the state names, and no other snapshot stands."""
        kept = self.job.state().snapshots
        assert {each.uuid for each in kept.values()} == {each.uuid for each in self.host.snapshots.values()}
        for name in self.names:
            assert self.on_target(name) == self.host.file(kept[name].name).read_bytes(), name

    def assert_equals_the_volumes(self) -> None:
        for name in self.names:
            assert self.on_target(name) == self.host.file(name).read_bytes(), name


def quiet(_name):
    return lambda _progress: None


def plan(target: Path, names: tuple[str, ...]) -> Plan:
    volumes = tuple(
        Volume(
            device=name,
            source=f"/dev/{GROUP}/{name}",
            path=f"/dev/{GROUP}/{name}",
            size=MIB,
            filesystem=UNKNOWN,
            action=Action.COPY,
            why="",
            partition=Place(number=number, offset=(1 + number) * MIB, size=MIB),
        )
        for number, name in enumerate(names, 1)
    )
    return Plan(
        format=1,
        xen_host="played",
        guest=Guest(name="web1", memory_mib=64),
        disk=Disk(
            path=str(target),
            size=8 * MIB,
            table=TableKind.MBR,
            identity="0f0e0d0c-0000-4000-8000-000000000000",
            boot_area=BootPlace(offset=512, size=MIB - 512),
        ),
        boot=Boot(root=names[0], arguments=()),
        volume=volumes,
    )
