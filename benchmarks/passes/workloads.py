"""The passes that are compared: for each its contenders, and the bars that our figures have to clear."""

import itertools
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.passes import images
from benchmarks.passes.contenders import OURS, Contender, timed
from benchmarks.passes.images import Dirt

BLOCK = 16 * 1024

Medians = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bar:
    """A claim about the medians: `holds` gets seconds by contender, and sees every name in `needs`."""

    claim: str
    needs: tuple[str, ...]
    holds: Callable[[Medians], bool]

    def verdict(self, medians: Medians) -> str:
        missing = [name for name in self.needs if name not in medians]
        if missing:
            return f"not measured: {', '.join(missing)} missing"
        return "met" if self.holds(medians) else "NOT met"


@dataclass(frozen=True, slots=True)
class Workload:
    """One pass as every contender makes it.

    `writes` says that there is something to write and so to flush; `facts` are looked at once, after the
    rounds. `ours` is the contender that the others are set against; `size` the bytes of a pass, when they are
    not those of the run's image. `cached` is read before each run: bdsync, for one, puts what it read out of
    the page cache, for which whoever comes after it would pay.
    """

    title: str
    contenders: tuple[Contender, ...]
    bars: tuple[Bar, ...]
    writes: bool = False
    facts: Callable[[], list[str]] = list
    ours: str = "blocksync"
    size: int | None = None
    cached: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the images of a run are, and what they are made of.

    Those that remember a target each have their own, which nobody else writes to: a digest file is not
    believed when somebody did.
    """

    folder: Path
    size: int
    seed: int

    @property
    def source(self) -> Path:
        return self.folder / "source.img"

    @property
    def target(self) -> Path:
        return self.folder / "target.img"

    @property
    def fresh(self) -> Path:
        return self.folder / "fresh.img"

    def target_of(self, name: str) -> Path:
        return self.folder / f"{name}.img"

    def digests(self, name: str) -> Path:
        return self.folder / f"{name}.digests"

    def set_up(self) -> None:
        """The source, in the page cache."""
        images.build(self.source, self.size, self.seed)
        images.warm(self.source)

    def copied(self, path: Path) -> Path:
        """A target that holds the source's bytes, durable and in the page cache."""
        shutil.copyfile(self.source, path)
        timed(("sync", str(path)))
        images.warm(path)
        return path


Maker = Callable[[Place], Workload | AbstractContextManager[Workload]]


def _ours(place: Place, *options: object, target: Path | None = None) -> Contender:
    argv = (str(OURS), "sync", "--json", str(place.source), str(target or place.target), *map(str, options))
    return Contender(name="blocksync", program=str(OURS), argv=argv)


def _remembering(place: Place) -> tuple[Contender, ...]:
    """Those that keep a digest file, made here, each with a target of its own."""
    fast = place.target_of("blocksync-fast")
    files = ("-s", str(place.source), "-d", str(fast), "-f", str(place.digests("blocksync-fast")))
    contenders = (
        _ours(place, "--digests", place.digests("blocksync")),
        Contender(
            name="blocksync-fast",
            program="blocksync-fast",
            argv=("blocksync-fast", "--silent", "-b", "64K", *files),
            flushed=False,
        ),
    )
    for contender in contenders:
        if contender.present:
            # Digests of an earlier workload are about other bytes.
            place.digests(contender.name).unlink(missing_ok=True)
            place.copied(fast if contender.name == "blocksync-fast" else place.target)
            contender.run()
    return contenders


def _forgetting(place: Place, target: Path) -> tuple[Contender, ...]:
    """Those that read the target anew each time."""
    pipe = (
        f"bdsync --hash=sha1 --blocksize=65536 'bdsync --server' {place.source} {target} "
        f"| bdsync --patch={target}"
    )
    rsync = ("rsync", "--ignore-times", "--inplace", "--no-whole-file", str(place.source), str(target))
    return (
        Contender(
            name="bdsync", program="bdsync", argv=("bash", "-o", "pipefail", "-c", pipe), flushed=False
        ),
        Contender(name="rsync", program="rsync", argv=rsync, flushed=False),
    )


def unchanged_with_digests(place: Place) -> Workload:
    """Nothing changed, and every tool that can remember the target does."""
    reader = Contender(
        name="dd to /dev/null",
        program="dd",
        argv=("dd", "bs=1M", "status=none", f"if={place.source}", "of=/dev/null"),
    )
    others = place.copied(place.target_of("others"))
    return Workload(
        "Nothing changed, digest file present",
        (*_remembering(place), reader, *_forgetting(place, others)),
        (
            _faster("blocksync-fast", 2.0),
            Bar(
                "at least 75% of dd's rate",
                ("dd to /dev/null", "blocksync"),
                lambda m: m["dd to /dev/null"] >= 0.75 * m["blocksync"],
            ),
        ),
        cached=(place.source, others),
    )


def unchanged_without_digests(place: Place) -> Workload:
    """Nothing changed, and both sides have to be read."""
    source, target = str(place.source), str(place.copied(place.target))
    compare = ("qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", source, target)
    return Workload(
        "Nothing changed, no digest file",
        (
            _ours(place),
            Contender(name="qemu-img compare", program="qemu-img", argv=compare),
            Contender(name="cmp", program="cmp", argv=("cmp", source, target)),
        ),
        (_faster("qemu-img compare", 1.0),),
    )


def one_percent_dirty(place: Place) -> Workload:
    """1% of the source changed since the last pass."""
    dirt = Dirt.of(place.size, place.seed)
    others = place.target_of("others")
    dirt.apply(place.source, 0)
    place.copied(others)

    # The source goes back and forth between two states; each remembered target is in the other one.
    def flipping(contender: Contender) -> Contender:
        states = itertools.cycle((1, 0))
        return replace(contender, reset=lambda: dirt.apply(place.source, next(states)))

    def dirty_others() -> None:
        dirt.apply(place.source, 1)
        dirt.apply(others, 0)

    ours, fast = map(flipping, _remembering(place))
    flushed = f"{shlex.join(fast.argv)} && sync --data {shlex.quote(str(place.target_of('blocksync-fast')))}"
    fast_flushed = replace(fast, name="blocksync-fast, sync", argv=("bash", "-c", flushed), flushed=True)
    forgetting = [replace(each, reset=dirty_others) for each in _forgetting(place, others)]
    return Workload(
        "1% dirty, digest file present",
        (ours, fast, fast_flushed, *forgetting),
        (_faster("blocksync-fast", 2.0), _faster(fast_flushed.name, 2.0)),
        writes=True,
        facts=lambda: [f"{dirt.total:,} bytes differ, in {len(dirt.places):,} places"],
        cached=(place.source, others),
    )


def full_copy(place: Place) -> Workload:
    """Every byte to a file that exists, allocated, and holds other bytes."""
    source, target = str(place.source), str(place.copied(place.target))

    def reset() -> None:
        images.overwrite_with_other_bytes(place.target, place.source)

    def contender(name: str, *argv: str, flushed: bool = True) -> Contender:
        return Contender(name=name, program=argv[0], argv=argv, flushed=flushed, reset=reset)

    dd = ("dd", "bs=1M", "status=none", f"if={source}", f"of={target}")
    ours = _ours(place, "--no-compare")
    return Workload(
        "First full copy to an existing file",
        (
            contender(ours.name, *ours.argv),
            contender("dd, fsync", *dd, "conv=notrunc,fsync"),
            contender("dd", *dd, "conv=notrunc", flushed=False),
            contender(
                "qemu-img convert",
                *("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, target),
                flushed=False,
            ),
            contender("cp", "cp", source, target, flushed=False),
            contender("nbdcopy", "nbdcopy", "--flush", source, target),
            contender("rsync", "rsync", "-I", "--inplace", "--whole-file", source, target, flushed=False),
        ),
        (
            Bar(
                "no slower than dd bs=1M conv=notrunc,fsync",
                ("dd, fsync", "blocksync"),
                lambda m: m["blocksync"] <= m["dd, fsync"],
            ),
        ),
        writes=True,
        cached=(place.source, place.target),
    )


def new_sparse_file(place: Place) -> Workload:
    """Every byte to a file that does not exist yet; zeros should become holes."""
    source, fresh = str(place.source), str(place.fresh)
    allocated: dict[str, int] = {}

    def contender(name: str, *argv: str, flushed: bool = True) -> Contender:
        def reset() -> None:
            if place.fresh.exists():
                place.fresh.unlink()
            timed(("sync", "-f", str(place.folder)))

        return Contender(name=name, program=argv[0], argv=argv, flushed=flushed, reset=reset)

    ours = _ours(place, target=place.fresh)
    contenders = (
        contender(ours.name, *ours.argv),
        contender(
            "dd, sparse, fsync",
            *("dd", "bs=1M", "status=none", f"if={source}", f"of={fresh}", "conv=sparse,fsync"),
        ),
        contender("cp", "cp", "--sparse=always", source, fresh, flushed=False),
        contender(
            "qemu-img convert",
            *("qemu-img", "convert", "-f", "raw", "-O", "raw", source, fresh),
            flushed=False,
        ),
        contender("rsync", "rsync", "--sparse", "--whole-file", source, fresh, flushed=False),
    )

    written: list[int] = []

    def facts() -> list[str]:
        for each in contenders:
            if each.present:
                each.reset()
                output = each.run().output
                timed(("sync", fresh))
                allocated[each.name] = place.fresh.stat().st_blocks * 512
                if each.name == ours.name:
                    written.append(json.loads(output)["bytes_written"])
        place.fresh.unlink(missing_ok=True)
        share = ", ".join(f"{name} {count / place.size:.0%}" for name, count in allocated.items())
        return [f"{data / place.size:.0%} of the image are blocks with data; allocated were: {share}"]

    data = place.size - images.zero_bytes(place.source, BLOCK)
    zeros = Bar(
        "zero blocks become holes and cost no writes",
        ("blocksync",),
        lambda _: written == [data] and allocated["blocksync"] <= data + place.size // 1000,
    )
    return Workload("First full copy to a new sparse file", contenders, (zeros,), writes=True, facts=facts)


def cold_direct(place: Place) -> Workload:
    """Nothing changed, read past the page cache from an image file."""
    digests = place.digests("direct")
    ours = _ours(place, "--direct", "--digests", digests, target=place.copied(place.target))
    ours.run()
    return _cold("Cold, direct I/O, from an image file", ours, place.source)


@contextmanager
def cold_loop(place: Place) -> Iterator[Workload]:
    """Nothing changed, read past the page cache from a block device: a loop device on the image."""
    argv = ["losetup", "--find", "--show", "--read-only", "--direct-io=on", str(place.source)]
    device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        digests = place.digests("loop")
        target = place.copied(place.target)
        argv = [str(OURS), "sync", "--json", device, str(target), "--digests", str(digests)]
        ours = Contender(name="blocksync", program=str(OURS), argv=tuple(argv))
        ours.run()
        yield _cold("Cold, direct I/O, from a loop device", ours, Path(device))
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def _cold(title: str, ours: Contender, source: Path) -> Workload:
    size = source.stat().st_size or int(
        subprocess.run(["blockdev", "--getsize64", source], check=True, capture_output=True, text=True).stdout
    )
    fio = ("fio", "--name=read", f"--filename={source}", f"--size={size}", "--readonly", "--rw=read")
    how = ("--direct=1", "--bs=1M", "--iodepth=8", "--ioengine=libaio", "--output-format=json")
    reader = Contender(
        name="fio",
        program="fio",
        argv=(*fio, *how),
        # fio takes a while to start; its own figure leaves that out.
        figure=lambda output: size / json.loads(output)["jobs"][0]["read"]["bw_bytes"],
    )
    holds = Bar(
        "95% of fio's sequential read, direct, queue depth 8",
        ("fio", "blocksync"),
        lambda m: m["fio"] >= 0.95 * m["blocksync"],
    )
    return Workload(title, (ours, reader), (holds,))


def _faster(peer: str, times: float) -> Bar:
    claim = f"faster than {peer}" if times == 1.0 else f"at least {times:g} times as fast as {peer}"
    return Bar(claim, (peer, "blocksync"), lambda m: m["blocksync"] * times <= m[peer])
