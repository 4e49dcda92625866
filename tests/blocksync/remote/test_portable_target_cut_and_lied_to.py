"""The portable agent as a target, when the link is cut anywhere or the near end lies."""

import hashlib
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from played_links import FAR_TO_NEAR, NEAR_TO_FAR, Cut, PlayedTransport

from blocksync import remote
from blocksync.agent import installed, portable_agent
from blocksync.errors import BlocksyncError, ExitCode, Failed
from blocksync.passes import PassRequest
from blocksync.wire.conversation import await_greeting, await_hello, expect, say, send_extents
from blocksync.wire.frames import Codec, FrameHeader, FrameKind, terms
from blocksync.wire.link import Link
from blocksync.wire.messages import PROTOCOL, Done, FarDevice, Hello, PassOrder, Ready, Start, Totals

BLOCK = 4096
MIB = 2**20
SIZE = 10 * BLOCK + 100
WIDTH = 32
PROGRAM = [sys.executable, portable_agent.__file__]


def serve_portably(read_fd: int, write_fd: int) -> None:
    subprocess.run(PROGRAM, stdin=read_fd, stdout=write_fd, check=False)


def test_a_link_that_is_cut_anywhere_leaves_a_job_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "serve", serve_portably)
    source, target = tmp_path / "source", tmp_path / "target"
    new = os.urandom(MIB) + bytes(MIB) + os.urandom(5000)
    old = bytearray(new)
    for at in (0, 70000, 200000, 2 * MIB):
        old[at : at + 1000] = os.urandom(1000)
    old[MIB + 5 * BLOCK : MIB + 6 * BLOCK] = b"x" * BLOCK
    source.write_bytes(new)
    request = PassRequest(source=source, target=target, block_size=BLOCK)

    def run(cut: Cut | None) -> PlayedTransport:
        transport = PlayedTransport(cut)
        remote.run(request, far="target", transport=transport, patience=5.0)
        return transport

    target.write_bytes(old)
    whole = run(None)
    for direction in (FAR_TO_NEAR, NEAR_TO_FAR):
        for number in range(len(whole.seen[direction])):
            target.write_bytes(old)
            with pytest.raises(BlocksyncError) as caught:
                run(Cut(direction, number, middle=number % 2 == 0))
            assert caught.value.exit_code in (ExitCode.FAILED, ExitCode.INTERRUPTED)
            held = target.read_bytes()
            for at in range(0, len(new), BLOCK):
                assert held[at : at + BLOCK] in (old[at : at + BLOCK], new[at : at + BLOCK])
            run(None)
            assert target.read_bytes() == new


class Liar:
    """A near end played by a test, to the portable agent over a file of random bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_bytes(os.urandom(BLOCK + SIZE + BLOCK))
        self.terms = terms(SIZE, BLOCK, WIDTH)
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                PROGRAM, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
            )
        self.link = Link(self._ours.fileno(), self._ours.fileno(), peer="the agent", patience=10.0)
        await_greeting(self.link)
        self.link.greet()
        say(self.link, Hello(protocol=PROTOCOL, hashes=("sha256",), codecs=()))
        await_hello(self.link)
        say(self.link, PassOrder(role="target", path=str(path)))
        expect(self.link, FarDevice)

    def begin(self, **lies: object) -> None:
        truth = {"size": SIZE, "target_offset": BLOCK, "block_size": BLOCK, "hash": "sha256"}
        say(self.link, Start(**truth | {"wanted": (0, SIZE), "overrides": ("signature",)} | lies))

    def hear_digests(self) -> None:
        expect(self.link, Ready)
        told = 0
        while told < SIZE:
            header = self.link.receive(self.terms)
            self.link.payload(header)
            if header.kind is FrameKind.DIGESTS:
                told = header.offset + header.size

    def send(self, number: int, data: bytes, digest: bytes | None = None) -> None:
        digest = digest or hashlib.sha256(data).digest()
        self.link.send(FrameKind.DATA, digest, data, offset=number * BLOCK, size=len(data))

    def total(self, **lies: object) -> None:
        truth = {"frames": 1, "looked_at": SIZE, "read": SIZE, "changed": BLOCK, "complete": True}
        say(self.link, Totals(**truth | lies))

    def close(self) -> None:
        self._ours.close()
        self._process.wait(10)


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Liar]:
    played = Liar(tmp_path / "target")
    yield played
    played.close()


def raw(
    kind: FrameKind, payload: bytes, offset: int, size: int, length: int | None = None
) -> Callable[..., None]:
    header = FrameHeader(kind, Codec.NONE, len(payload) if length is None else length, offset, size)
    return lambda liar: liar.link.send_program(header.pack() + payload)


def bomb(liar: Liar) -> None:
    packed = zlib.compress(bytes(100 * BLOCK))
    digest = hashlib.sha256(bytes(BLOCK)).digest()
    liar.link.send(FrameKind.DATA, digest, packed, offset=0, size=BLOCK, codec=Codec.ZLIB)


NEW = os.urandom(BLOCK)
LIES: dict[str, Callable[[Liar], None]] = {
    "data that is not what was hashed": lambda liar: liar.send(0, NEW, bytes(WIDTH)),
    "a block behind the last": lambda liar: liar.send(11, NEW),
    "an offset that overflows": raw(FrameKind.ZEROS, b"", 2**64 - BLOCK, BLOCK),
    "half a block": raw(FrameKind.DATA, bytes(WIDTH + 512), 0, 512),
    "a start inside a block": raw(FrameKind.ZEROS, b"", 512, BLOCK),
    "zeros over the end": raw(FrameKind.ZEROS, b"", 0, SIZE + 1),
    "an endless payload": raw(FrameKind.DATA, b"", 0, BLOCK, 2**32 - 1),
    "less data than it says": raw(FrameKind.DATA, bytes(WIDTH + 512), 0, BLOCK),
    "no length and a count": raw(FrameKind.DATA, b"", 0, BLOCK),
    "a bomb": bomb,
    "what only a target says": raw(FrameKind.UNKNOWN, b"", 0, BLOCK),
    "a change of a dry pass": raw(FrameKind.DIFFERS, b"", 0, BLOCK),
    "a long message": raw(FrameKind.TOTALS, b"", 0, 0, 2**20),
    "totals of another number of frames": lambda liar: liar.total(),
    "totals that are none": raw(FrameKind.TOTALS, b"[]", 0, 0),
    "a complete pass over a part": lambda liar: liar.total(frames=0, changed=0, looked_at=1),
    "an unknown frame": lambda liar: liar.link.send_program(struct.pack(">BBHIQQ", 99, 0, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_and_nothing_is_written(liar: Liar, lie: str) -> None:
    before = liar.path.read_bytes()
    liar.begin()
    liar.hear_digests()
    LIES[lie](liar)
    with pytest.raises(Failed, match="breaks the protocol"):
        expect(liar.link, Done)
    assert liar.path.read_bytes() == before


def test_no_block_is_taken_twice(liar: Liar) -> None:
    liar.begin()
    liar.hear_digests()
    liar.send(3, NEW)
    liar.send(3, os.urandom(BLOCK))
    with pytest.raises(Failed, match="a second time"):
        expect(liar.link, Done)
    assert liar.path.read_bytes()[4 * BLOCK : 5 * BLOCK] == NEW


def test_nothing_outside_the_extents_is_taken(liar: Liar) -> None:
    before = liar.path.read_bytes()
    liar.begin(extents=2)
    send_extents(liar.link, [(0, BLOCK), (3 * BLOCK, BLOCK)])
    expect(liar.link, Ready)
    liar.send(1, NEW)
    with pytest.raises(Failed, match="were not asked for"):
        hear_until_it_ends(liar)
    assert liar.path.read_bytes() == before


def hear_until_it_ends(liar: Liar) -> None:
    skip = {FrameKind.DIGESTS: lambda header: liar.link.take(memoryview(bytearray(header.payload)))}
    while True:
        # Digests are counted in the terms of the pass, which `expect` does not have.
        header = liar.link.receive(liar.terms)
        if header.kind in skip:
            skip[header.kind](header)
        elif header.kind is FrameKind.ERROR:
            raise Failed("the agent", liar.link.payload(header).decode())


@pytest.mark.parametrize(
    "lie",
    [
        {"size": 2**62, "target_offset": 2**62},
        {"target_offset": 3 * BLOCK},
        {"target_offset": 100},
        {"hash": "crc32"},
        {"block_size": 5000},
        {"wanted": (0, 2**60)},
        {"size": SIZE, "target_offset": 3 * BLOCK, "overrides": ("size", "alignment")},
    ],
    ids=str,
)
def test_a_pass_that_cannot_be_is_refused(liar: Liar, lie: dict[str, object]) -> None:
    before = liar.path.read_bytes()
    liar.begin(**lie)
    with pytest.raises(BlocksyncError, match="the agent: "):
        expect(liar.link, Ready)
    assert liar.path.read_bytes() == before


def test_an_honest_source_is_served_and_its_zlib_unpacked(liar: Liar) -> None:
    expected = bytearray(liar.path.read_bytes())
    liar.begin()
    liar.hear_digests()
    data = b"shrinks " * (BLOCK // 8)
    digest = hashlib.sha256(data).digest()
    liar.link.send(FrameKind.DATA, digest, zlib.compress(data), offset=0, size=BLOCK, codec=Codec.ZLIB)
    liar.link.send(FrameKind.ZEROS, offset=9 * BLOCK, size=BLOCK + 100)
    liar.total(frames=2, changed=2 * BLOCK + 100)
    done = expect(liar.link, Done)
    expected[BLOCK : 2 * BLOCK] = data
    expected[10 * BLOCK : BLOCK + SIZE] = bytes(BLOCK + 100)
    assert (done.frames, done.written) == (2, 2 * BLOCK + 100)
    assert liar.path.read_bytes() == expected
