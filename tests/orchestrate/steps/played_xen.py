"""A Xen host that is played: its volumes are files, its LVM and device-mapper answer as the real ones do, its
guest goes on writing, and whoever talks to it may be killed at any step.
"""

import shlex
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from blocksync.errors import Failed
from blocksync.extents import Extents
from blocksync.hosts.host import MOST_BYTES, Completed, HostLost
from blocksync.passes import PassReport, PassRequest
from blocksync.progress import Report
from blocksync.remote import PassPart
from orchestrate.copying.source import Here

GROUP = "vg0"
CHUNK = 65536
STORE_CHUNKS = 64


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing runs after it."""


@dataclass
class PlayedSnapshot:
    """A snapshot: the file is a copy, which the kernel would make of chunks at their first write."""

    name: str
    origin: str
    tags: list[str]
    uuid: str = field(default_factory=lambda: f"snap{uuid.uuid4()}")
    changed: set[int] = field(default_factory=set)
    lost: bool = False


@dataclass
class PlayedXen:
    """The host. `kill_at` is the step at which whoever drives it dies, before or after its effect; with `cut`
    it is the link that goes, and stays away.
    """

    folder: Path
    boot: str = "0" * 36
    free: int = 10**9
    snapshots: dict[str, PlayedSnapshot] = field(default_factory=dict)
    uuids: dict[str, str] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    steps: int = 0
    kill_at: int | None = None
    kill_after: bool = False
    cut: bool = False
    no_lvm: bool = False
    running: bool = True

    def add(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        self.uuids[name] = f"orig{uuid.uuid4()}"

    def file(self, path: Path | str) -> Path:
        return self.folder / Path(path).name

    def write(self, name: str, offset: int, data: bytes) -> None:
        """The guest writes."""
        with self.file(name).open("r+b") as volume:
            volume.seek(offset)
            volume.write(data)
        for each in self.snapshots.values():
            if each.origin == name:
                each.changed |= set(range(offset // CHUNK, -(-(offset + len(data)) // CHUNK)))

    def reboot(self) -> None:
        self.boot = "1" * 36

    def step(self, work):
        """Do a part of the work, or die before or after it."""
        if self.kill_at is not None and self.steps >= self.kill_at:
            if self.steps == self.kill_at and self.kill_after:
                work()
            self.steps += 1
            if self.cut:
                raise HostLost(self.describe(), "the link broke", "see that it is reached again")
            raise Killed
        self.steps += 1
        return work()

    def describe(self) -> str:
        return "the played host"

    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        status, output = self.step(lambda: self._answer(list(argv)))
        return Completed(status, b"" if status else output, output.decode() if status else "")

    def _answer(self, argv: list[str]) -> tuple[int, bytes]:
        if argv[:2] == ["env", "LC_ALL=C"]:
            argv = argv[2:]
        answer = {
            "lvs": self._lvs,
            "vgs": lambda _: (0, f"{self.free} 4194304".encode()),
            "cat": lambda _: (0, self.boot.encode()),
            "sh": self._shell,
            "dmsetup": lambda words: (0, self._state(words[-1])),
            "lvremove": self._lvremove,
            "stat": lambda _: (0, b"block special file:0"),
            "blockdev": lambda words: (0, str(self.file(words[-1]).stat().st_size).encode()),
            "blkid": lambda _: (2, b""),
            "dd": lambda _: (0, b""),
        }
        return answer[argv[0]](argv)

    def _lvs(self, argv: list[str]) -> tuple[int, bytes]:
        if self.no_lvm:
            return 127, b"lvs: not found"
        rows = [(name, each, "owi-aos---", "", "") for name, each in self.uuids.items()]
        rows += [
            (each.name, each.uuid, "sri-a-s---", each.origin, ",".join(each.tags))
            for each in self.snapshots.values()
        ]
        lines = [
            f" {GROUP}|{name}|{lv}|{self.file(name).stat().st_size}|{attr}|{origin}||{tags}"
            for name, lv, attr, origin, tags in rows
        ]
        return 0, "\n".join(lines).encode()

    def _shell(self, argv: list[str]) -> tuple[int, bytes]:
        script, words = argv[2], argv[4:]
        if "lvcreate" in script:
            return self._make(script)
        if "for tool in xl" in script:
            told = "xl\nName ID Mem VCPUs State Time(s)\nweb1 3 64 1 -b---- 10.0\n"
            return (0, told.encode()) if self.running else (1, b"")
        if "boot_id" in script:
            return 0, self._look(*words[:2])
        return 0, self._pieces(words[0], int(words[1]), list(map(int, words[2:])))

    def _make(self, script: str) -> tuple[int, bytes]:
        for line in script.splitlines():
            words = shlex.split(line) if line.startswith(("lvcreate", "xl")) else []
            if words[:1] == ["lvcreate"]:
                tags = [words[at + 1] for at, word in enumerate(words) if word == "--addtag"]
                name = words[words.index("--name") + 1]
                origin = next(word for word in words if word.startswith(f"{GROUP}/")).split("/")[1]
                self.snapshots[name] = PlayedSnapshot(name, origin, tags)
                (self.folder / name).write_bytes((self.folder / origin).read_bytes())
            elif words:
                self.held.append(" ".join(words[:2]))
        return 0, b""

    def _lvremove(self, argv: list[str]) -> tuple[int, bytes]:
        for full_name in argv[2:]:
            del self.snapshots[full_name.split("/")[1]]
        return 0, b""

    def _named(self, dm_name: str) -> PlayedSnapshot | None:
        name = dm_name.removeprefix(f"{GROUP}-").replace("--", "-")
        return self.snapshots.get(name)

    def _state(self, dm_name: str) -> bytes:
        each = self._named(dm_name)
        if each is None:
            return b""
        used = f"{16 * len(each.changed)}/{10**6} 16" if not each.lost else "Invalid"
        return f"0 2048 snapshot {used}\n".encode()

    def _look(self, origin: str, snapshot: str) -> bytes:
        name, each = origin.removeprefix(f"{GROUP}-"), self._named(snapshot)
        size = (self.folder / name).stat().st_size
        lines = [f"LVM-group{self.uuids[name].replace('-', '')} {size}"]
        lines += [f"LVM-group{each.uuid.replace('-', '')} {size}" if each else ""]
        lines += [self.boot, str(STORE_CHUNKS * CHUNK)]
        beginning = self._store(each)[: 2 * CHUNK] if each else b""
        return "\n".join(lines).encode() + b"\n" + beginning + b"\n" + self._state(snapshot)

    def _pieces(self, snapshot: str, length: int, numbers: list[int]) -> bytes:
        each = self._named(snapshot)
        if each is None:
            return b""
        store = self._store(each)
        pieces = [store[number * length : (number + 1) * length] for number in numbers]
        return b"".join(pieces) + self._state(snapshot)

    @staticmethod
    def _store(each: PlayedSnapshot) -> bytes:
        """Header and first area, as docs of dm-snapshot have them; data chunks hold nothing of interest."""
        header = struct.pack("<4I", 0x70416E53, 1, 1, CHUNK // 512).ljust(CHUNK, b"\0")
        entries = b"".join(struct.pack("<2Q", old, 2 + at) for at, old in enumerate(sorted(each.changed)))
        return (header + entries.ljust(CHUNK, b"\0")).ljust(STORE_CHUNKS * CHUNK, b"\0")


class PlayedSource:
    """Passes from a played host, by the real engine; the guest writes before and after each copy."""

    def __init__(self, host: PlayedXen, guest_writes) -> None:
        self.host = host
        self.asked: list[PassRequest] = []
        self._guest_writes = guest_writes

    def make_ready(self, passes: int) -> None:
        """Nothing is started for a pass here."""

    def copy_all(self, parts) -> list[PassReport]:
        return [self.copy(part.request, part.progress) for part in parts]

    def copy(self, request: PassRequest, progress: Report) -> PassReport:
        """A pass is three steps: nothing, a part of it, and all of it."""
        self.asked.append(request)
        self._guest_writes()
        snapshot = self.host.snapshots.get(request.source.name)
        if snapshot is not None and snapshot.lost:
            raise Failed(request.source, "cannot be read at byte 0: Input/output error")
        origin = None if request.origin is None else self.host.file(request.origin)
        there = replace(request, source=self.host.file(request.source), origin=origin)
        half = Extents.of([(0, 3 * CHUNK)]) if there.only is None else Extents(there.only.rows[:1])
        self.host.step(lambda: Here().copy_all([PassPart(replace(there, only=half), progress)]))
        (report,) = self.host.step(lambda: Here().copy_all([PassPart(there, progress)]))
        self._guest_writes()
        return report

    def prove_all(self, proofs) -> list[str]:
        return [self._prove(proof) for proof in proofs]

    def _prove(self, proof) -> str:
        self._guest_writes()
        there = replace(proof, volume=self.host.file(proof.volume))
        (proven,) = self.host.step(lambda: Here().prove_all([there]))
        return proven
