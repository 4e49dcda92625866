"""Passes from a host that is this machine too, over a real sshd: ours by each transport, and the peers'."""

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.passes import images
from benchmarks.passes.contenders import OURS, Contender
from benchmarks.passes.images import Dirt
from benchmarks.passes.workloads import Bar, Place, Workload
from benchmarks.remote import sshd
from benchmarks.remote.rehearsal import rehearse
from benchmarks.remote.sshd import HOST, Server

TRANSPORTS = ("openssh", "paramiko", "tls")
BLOCK = 64 * 1024
MIB = 2**20
LOCAL = "blocksync, local"
LOCAL_START = "blocksync, local, one block"
AES = "aes128-gcm@openssh.com"
PIPE_AES = "dd through ssh, aes128-gcm"
PIPE_TLS = "socat through TLS, dd"
PEERS = ("rsync", "bdsync", "blocksync-fast")


@dataclass(frozen=True, slots=True)
class Site:
    """The images of a run, and the host that the source is on.

    `states` are those of the source's dirt that each remembered target is in.
    """

    place: Place
    server: Server
    states: dict[str, int] = field(default_factory=dict)

    @property
    def others(self) -> str:
        """The target of those that remember nothing."""
        return str(self.place.target_of("others"))

    def ours(self, transport: str, *options: object, name: str = "") -> Contender:
        """A pull by one transport."""
        source = f"ssh://{HOST}{self.place.source}"
        argv = (str(OURS), "sync", "--json", "--transport", transport, source, str(self.place.target))
        return Contender(
            name=f"blocksync, {transport}{name}",
            program=str(OURS),
            argv=(*self.server.near, *argv, *map(str, options)),
        )

    def local(self, *options: object, name: str = LOCAL) -> Contender:
        argv = (str(OURS), "sync", "--json", str(self.place.source), str(self.place.target))
        return Contender(name=name, program=str(OURS), argv=(*argv, *map(str, options)))

    def peer(self, name: str, program: str, *argv: str, flushed: bool = False) -> Contender:
        return Contender(name=name, program=program, argv=(*self.server.near, *argv), flushed=flushed)

    def piped(self, name: str, program: str, pipe: str, *, flushed: bool = False) -> Contender:
        return self.peer(name, program, "bash", "-o", "pipefail", "-c", pipe, flushed=flushed)


def _remembering_peer(site: Site) -> Contender:
    place = site.place
    target, digests = place.target_of("blocksync-fast"), place.digests("blocksync-fast")
    make = f"blocksync-fast --silent -b 64K -s {place.source} -f {digests} --make-delta"
    apply = f"blocksync-fast --silent -b 64K -d {target} --apply-delta"
    contender = site.piped("blocksync-fast", "blocksync-fast", f"ssh {HOST} {shlex.quote(make)} | {apply}")
    if contender.present:
        digests.unlink(missing_ok=True)
        place.copied(target)
        contender.run()
    return contender


def _forgetting_peers(site: Site) -> tuple[Contender, ...]:
    source, target = site.place.source, site.others
    bdsync = (
        f"bdsync --hash=sha1 --blocksize=65536 --remdata 'ssh {HOST} bdsync --server' {target} {source} "
        f"| bdsync --patch={target}"
    )
    rsync = ("rsync", "--ignore-times", "--inplace", "--no-whole-file", f"{HOST}:{source}", target)
    return site.piped("bdsync", "bdsync", bdsync), site.peer("rsync", "rsync", *rsync)


def _remembered(site: Site, *contenders: Contender) -> None:
    """Make the target and the digest file that ours by every transport share."""
    site.place.digests("blocksync").unlink(missing_ok=True)
    site.place.copied(site.place.target)
    rehearse(contenders)


def unchanged(site: Site) -> Workload:
    """Nothing changed, and every tool that can remember the target does."""
    place = site.place
    remembered = ("--digests", place.digests("blocksync"))
    ours = [site.ours(each, *remembered) for each in TRANSPORTS]
    one_block = ("--size", BLOCK, "--digests", place.digests("one-block"))
    starts = [replace(site.ours(each, *one_block, name=", one block"), rated=False) for each in TRANSPORTS]
    local = site.local("--digests", place.digests("local"))
    one_block = ("--size", BLOCK, "--digests", place.digests("local-one-block"))
    local_start = replace(site.local(*one_block, name=LOCAL_START), rated=False)
    place.copied(place.target_of("others"))
    _remembered(site, *ours, *starts, local, local_start)

    def bar(transport: str) -> Bar:
        whole, start = f"blocksync, {transport}", f"blocksync, {transport}, one block"
        return Bar(
            f"{transport}: under 1.2 times the local pass plus connection set-up (what one block takes more "
            "than locally)",
            (whole, start, LOCAL, LOCAL_START),
            lambda m: m[whole] < 1.2 * m[LOCAL] + m[start] - m[LOCAL_START],
        )

    return Workload(
        "Nothing changed, digests at hand",
        (
            *(*ours, *starts, local, local_start),
            replace(site.peer("ssh far true", "ssh", "ssh", HOST, "true"), rated=False),
            *(_remembering_peer(site), *_forgetting_peers(site)),
        ),
        tuple(map(bar, TRANSPORTS)),
        ours="blocksync, openssh",
        cached=(place.source, Path(site.others)),
    )


def one_percent_dirty(site: Site) -> Workload:
    """1% of the source changed since the last pass."""
    place = site.place
    dirt = Dirt.of(place.size, place.seed)
    dirt.apply(place.source, 0)
    place.copied(place.target_of("others"))
    ours = [site.ours(each, "--digests", place.digests("blocksync")) for each in TRANSPORTS]
    _remembered(site, *ours)
    fast = _remembering_peer(site)
    *words, pipe = fast.argv
    flushed = (*words, f"{pipe} && sync {place.target_of('blocksync-fast')}")
    fast_flushed = replace(fast, name="blocksync-fast, sync", argv=flushed, flushed=True)
    site.states.update(ours=0, fast=0)

    # The source goes back and forth between two states; each remembered target is in the other one.
    def flip(target: str) -> None:
        site.states[target] = 1 - site.states[target]
        dirt.apply(place.source, site.states[target])

    def dirty_others() -> None:
        dirt.apply(place.source, 1)
        dirt.apply(place.target_of("others"), 0)

    def bar(transport: str) -> Bar:
        name = f"blocksync, {transport}"
        return Bar(
            f"{transport}: at least 3 times as fast as the best peer",
            (name, *PEERS),
            lambda m: 3 * m[name] <= min(m[peer] for peer in PEERS),
        )

    return Workload(
        "1% dirty, digests at hand",
        (
            *(replace(each, reset=lambda: flip("ours")) for each in ours),
            *(replace(each, reset=lambda: flip("fast")) for each in (fast, fast_flushed)),
            *(replace(each, reset=dirty_others) for each in _forgetting_peers(site)),
        ),
        tuple(map(bar, TRANSPORTS)),
        writes=True,
        facts=lambda: [f"{dirt.total:,} bytes differ, in {len(dirt.places):,} places"],
        ours="blocksync, openssh",
        cached=(place.source, Path(site.others)),
    )


def full_copy(site: Site) -> Workload:
    """Every byte to a file that exists, allocated, and holds other bytes."""
    return _full_copy(site, "First full copy to an existing file")


def full_copy_of_a_volume(site: Site) -> Workload:
    """The same of a guest's volume instead of the image."""
    folder = site.place.folder / "volume"
    folder.mkdir()
    place = replace(site.place, folder=folder)
    images.build_volume(place.source, place.size)
    return _full_copy(
        replace(site, place=place), "First full copy of a guest's volume: ext4, half of it files of /usr"
    )


def _full_copy(site: Site, title: str) -> Workload:
    place = site.place
    source, target = place.source, place.target
    place.copied(target)

    def reset() -> None:
        images.overwrite_with_other_bytes(target, source)

    def dd(name: str, ssh: str) -> Contender:
        pipe = f"{ssh} dd bs=1M status=none if={source} | dd bs=1M status=none of={target} conv=notrunc,fsync"
        return site.piped(name, "dd", pipe, flushed=True)

    def socat(certificate: Path, port: int) -> Contender:
        """TLS 1.3 by OpenSSL with nothing around it: what it takes on this machine."""
        there = f"OPENSSL:127.0.0.1:{port},verify=0,retry=500,interval=0.01"
        here = f"OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,cert={certificate},verify=0"
        send = f"socat -u -b {MIB} FILE:{source},rdonly {there}"
        write = f"dd bs=1M iflag=fullblock status=none of={target} conv=notrunc,fsync"
        pipe = f"ssh {HOST} {shlex.quote(send)} & socat -u -b {MIB} {here} - | {write} && wait $!"
        return site.piped(PIPE_TLS, "socat", pipe, flushed=True)

    ours = [site.ours(each, "--no-compare") for each in TRANSPORTS]
    rsync = ("rsync", "--ignore-times", "--inplace", "--whole-file", f"{HOST}:{source}", str(target))
    contenders = (
        *ours,
        dd("dd through ssh, default cipher", f"ssh {HOST}"),
        dd(PIPE_AES, f"ssh -c {AES} {HOST}"),
        socat(_certificate(place.folder), sshd.free_port()),
        site.peer("rsync -W", "rsync", *rsync),
    )
    return Workload(
        title,
        tuple(replace(each, reset=reset) for each in contenders),
        (_times_pipe("openssh", 1.5), _times_pipe("tls", 3.0)),
        writes=True,
        ours="blocksync, openssh",
        cached=(source, target),
    )


def _certificate(folder: Path) -> Path:
    """A key and a certificate for a peer, made anew."""
    path = folder / "peer.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=far", "-days", "2", "-keyout", str(path), "-out", f"{path}.certificate"]
    subprocess.run([*argv, *names], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.certificate").read_text())
    return path


def _times_pipe(transport: str, times: float) -> Bar:
    name = f"blocksync, {transport}"
    return Bar(
        f"{transport}: at least {times:g} times as fast as dd piped through ssh with AES-GCM",
        (name, PIPE_AES),
        lambda m: times * m[name] <= m[PIPE_AES],
    )


Maker = Callable[[Site], Workload]
WORKLOADS: tuple[Maker, ...] = (unchanged, one_percent_dirty, full_copy, full_copy_of_a_volume)
