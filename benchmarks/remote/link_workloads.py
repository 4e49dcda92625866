"""Passes over a link of a known rate and round-trip time."""

from dataclasses import replace

from benchmarks.passes import images
from benchmarks.passes.contenders import Contender
from benchmarks.passes.workloads import Bar, Workload
from benchmarks.remote.rehearsal import rehearse
from benchmarks.remote.shaped_link import Shape
from benchmarks.remote.sshd import HOST
from benchmarks.remote.workloads import AES, LOCAL, TRANSPORTS, Site

DIGEST = 16
FULL_SHARE = 0.95
SLACK = 1.2
BLOCK_SIZES = (65536, 16384, 4096)


def full_copy(site: Site, shape: Shape) -> Workload:
    """Incompressible bytes to a file that exists: what share of the link carries them."""
    place = site.place
    size = place.size
    images.build_random(place.source, size, place.seed)
    target = place.copied(place.target)

    def reset() -> None:
        images.overwrite_with_other_bytes(target, place.source)

    read = f"ssh -c {AES} {HOST} dd bs=1M status=none if={place.source}"
    pipe = f"{read} | dd bs=1M status=none of={target} conv=notrunc,fsync"
    contenders = (
        *(site.ours(each, "--no-compare") for each in TRANSPORTS),
        site.piped("dd through ssh, aes128-gcm", "dd", pipe, flushed=True),
    )
    most = size / shape.goodput

    def bar(transport: str) -> Bar:
        name = f"blocksync, {transport}"
        return Bar(
            f"{transport}: at least 95% of the {shape.goodput / 1e6:.2f} MB/s that TCP can carry there, "
            "connection set-up included",
            (name,),
            lambda m: most >= FULL_SHARE * m[name],
        )

    return Workload(
        f"First full copy of incompressible bytes over {shape}",
        tuple(replace(each, reset=reset) for each in contenders),
        tuple(map(bar, TRANSPORTS)),
        writes=True,
        facts=lambda: [f"{size:,} bytes take {most:.3f} s on that link at best"],
        ours="blocksync, openssh",
        size=size,
    )


def unchanged(site: Site, shape: Shape) -> Workload:
    """Nothing changed: only digests travel, and more of them the smaller the blocks are."""
    place = site.place
    place.copied(place.target)
    blocks = {f"{size // 1024} KiB blocks": size for size in BLOCK_SIZES}
    contenders: list[Contender] = []
    for words, size in blocks.items():
        options = ("--block-size", size, "--digests")
        contenders += [
            site.ours("openssh", *options, place.digests(words.replace(" ", "-")), name=f", {words}"),
            site.local(*options, place.digests(f"local-{size}"), name=f"{LOCAL}, {words}"),
        ]
    one = ("--size", BLOCK_SIZES[0], "--digests")
    start, local_start = "blocksync, openssh, one block", f"{LOCAL}, one block"
    starts = (
        site.ours("openssh", *one, place.digests("one-block"), name=", one block"),
        site.local(*one, place.digests("local-one-block"), name=local_start),
    )
    contenders += [replace(each, rated=False) for each in starts]
    rehearse(contenders)

    def digest_bytes(size: int) -> int:
        return place.size // size * DIGEST

    def bar(words: str, size: int) -> Bar:
        ours, local = f"blocksync, openssh, {words}", f"{LOCAL}, {words}"
        travel = digest_bytes(size) / shape.goodput
        return Bar(
            f"{words}: connection set-up plus at most 1.2 times the longer of the local pass and the "
            f"{travel:.3f} s that digests take on the link",
            (ours, local, start, local_start),
            lambda m: m[ours] <= m[start] - m[local_start] + SLACK * max(travel, m[local]),
        )

    def facts() -> list[str]:
        told = (f"{words}: {digest_bytes(size):,}" for words, size in blocks.items())
        waits = place.size // 2**20 * shape.round_trip
        return [
            f"bytes of digests, {', '.join(told)}",
            f"a round trip for each MiB would take {waits:.0f} s",
        ]

    return Workload(
        f"Nothing changed over {shape}",
        tuple(contenders),
        tuple(bar(*each) for each in blocks.items()),
        facts=facts,
        ours="blocksync, openssh, 64 KiB blocks",
    )
