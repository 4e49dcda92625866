"""The portable agent as a target: the same promises as of an installed one, on what old hosts have."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from blocksync import passes, remote
from blocksync.digests.hashes import BLAKE3
from blocksync.errors import BlocksyncError, Refused, Usage
from blocksync.extents import Extents
from blocksync.passes import PassRequest
from local_transport import Local

MIB = 2**20
BLOCK = 65536
SIZE = 3 * MIB + 4321
OLD_DEBIAN = Path(__file__).parents[3] / ".cache/bullseye-python2.7"

Image = Callable[[str, int], Path]
Attach = Callable[..., Path]


@pytest.fixture
def portable(with_only: Callable[[Path], Local]) -> Local:
    """A far end that has this Python and nothing else of ours."""
    return with_only(Path(sys.executable).resolve())


def overwrite(path: Path, *pieces: tuple[int, bytes]) -> None:
    with path.open("r+b") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)


def refusal(request: PassRequest, transport: Local) -> BlocksyncError:
    with pytest.raises((Refused, Usage)) as caught:
        remote.run(request, far="target", transport=transport)
    return caught.value


@pytest.mark.parametrize("block_size", [4096, BLOCK, 4 * MIB])
def test_the_range_equals_the_source_and_nothing_else_changed(
    image: Image, portable: Local, block_size: int
) -> None:
    source, target = image("source", SIZE), image("target", SIZE + 3 * MIB)
    before = target.read_bytes()
    overwrite(source, (MIB, bytes(MIB)))
    request = PassRequest(source=source, target=target, target_offset=MIB, block_size=block_size)
    report = remote.run(request, far="target", transport=portable)
    after = target.read_bytes()
    assert after[MIB : MIB + SIZE] == source.read_bytes()
    assert (after[:MIB], after[MIB + SIZE :]) == (before[:MIB], before[MIB + SIZE :])
    assert (report.bytes_total, report.bytes_changed) == (SIZE, SIZE)


def test_a_pass_writes_what_the_installed_agent_and_a_local_pass_would(
    tmp_path: Path, image: Image, portable: Local, installed: Local
) -> None:
    source = image("source", SIZE)
    twins = [tmp_path / name for name in ("near-twin", "installed-twin", "portable-twin")]
    for twin in twins:
        twin.write_bytes(source.read_bytes())
        overwrite(twin, (0, b"a"), (70000, b"b" * 200000), (2 * MIB, b"c" * MIB), (SIZE - 7, b"changed"))
    overwrite(source, (MIB, bytes(MIB)))
    local = passes.run(PassRequest(block_size=BLOCK, source=source, target=twins[0]))
    for twin, transport in ((twins[1], installed), (twins[2], portable)):
        report = remote.run(
            PassRequest(block_size=BLOCK, source=source, target=twin), far="target", transport=transport
        )
        assert twin.read_bytes() == source.read_bytes()
        assert report.changed == local.changed
        assert report.extents_written == local.extents_written


def test_with_its_digest_file_a_pass_reads_no_target_until_somebody_writes_to_it(
    tmp_path: Path, image: Image, portable: Local
) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    request = PassRequest(block_size=BLOCK, source=source, target=target, digests=tmp_path / "digests")
    remote.run(request, far="target", transport=portable)
    overwrite(source, (MIB + 5, b"changed"), (SIZE - 7, b"changed"))
    second = remote.run(request, far="target", transport=portable)
    assert (second.bytes_changed, second.target_bytes_read) == (BLOCK + SIZE % BLOCK, 0)
    overwrite(target, (2 * MIB, b"somebody"))
    third = remote.run(request, far="target", transport=portable)
    assert "stale" in third.notes[0]
    assert third.bytes_changed == BLOCK
    assert target.read_bytes() == source.read_bytes()


def test_only_the_given_extents_are_looked_at(image: Image, portable: Local) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    before = target.read_bytes()
    only = Extents.of([(70000, 10), (2 * MIB, 2 * BLOCK)])
    request = PassRequest(block_size=BLOCK, source=source, target=target, only=only, hash=BLAKE3)
    report = remote.run(request, far="target", transport=portable)
    assert report.bytes_total == report.bytes_changed == 3 * BLOCK
    expected = bytearray(before)
    for offset, size in ((BLOCK, BLOCK), (2 * MIB, 2 * BLOCK)):
        expected[offset : offset + size] = source.read_bytes()[offset : offset + size]
    assert target.read_bytes() == expected


def test_a_dry_run_writes_nothing(image: Image, portable: Local) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    held = target.read_bytes()
    request = PassRequest(source=source, target=target, dry_run=True)
    assert remote.run(request, far="target", transport=portable).bytes_changed == SIZE
    assert target.read_bytes() == held


def test_without_comparing_everything_is_written(image: Image, portable: Local) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    target.write_bytes(source.read_bytes())
    request = PassRequest(source=source, target=target, compare=False)
    report = remote.run(request, far="target", transport=portable)
    assert (report.bytes_written, report.target_bytes_read) == (SIZE, 0)


@pytest.mark.parametrize("end", ["installed", "portable"])
def test_a_proof_of_a_far_target_finds_each_block_that_differs(
    request: pytest.FixtureRequest, tmp_path: Path, image: Image, end: str
) -> None:
    transport = request.getfixturevalue(end)
    source, target = image("source", SIZE), tmp_path / "target"
    target.write_bytes(bytes(MIB) + source.read_bytes())
    same = remote.compare(source, target, target_offset=MIB, far="target", transport=transport)
    assert same.equal
    assert same.source_root == same.target_root != ""
    overwrite(target, (MIB + 70000, b"changed"), (MIB + SIZE - 7, b"changed"))
    other = remote.compare(source, target, target_offset=MIB, far="target", transport=transport)
    tail = SIZE // BLOCK * BLOCK
    assert other.differing.pairs() == [(BLOCK, BLOCK), (tail, SIZE - tail)]
    assert (other.equal, other.target_root != same.target_root) == (False, True)


def test_what_shrinks_is_compressed_where_the_link_is_slow(
    tmp_path: Path, image: Image, portable: Local
) -> None:
    source, target = tmp_path / "source", image("target", 16 * MIB)
    source.write_bytes(
        (b"%d lines of a log that say the same again\n" * 2**19 % tuple(range(2**19)))[: 16 * MIB]
    )
    request = PassRequest(source=source, target=target, bytes_per_second=3 * MIB)
    report = remote.run(request, far="target", transport=portable)
    assert target.read_bytes() == source.read_bytes()
    # As it is, it would take longer than five.
    assert report.seconds < 5


def test_zeros_become_holes(image: Image, portable: Local) -> None:
    source, target = image("source", 4 * MIB), image("target", 6 * MIB)
    overwrite(source, (MIB, bytes(2 * MIB)))
    full = target.stat().st_blocks
    report = remote.run(
        PassRequest(source=source, target=target, target_offset=MIB), far="target", transport=portable
    )
    assert target.read_bytes()[MIB : 5 * MIB] == source.read_bytes()
    assert (report.bytes_zeroed, report.bytes_written) == (2 * MIB, 2 * MIB)
    assert target.stat().st_blocks == full - 2 * MIB // 512


def _without_ctypes(portable: Local, folder: Path) -> Local:
    """A far end whose Python has a ctypes that cannot be loaded."""
    folder.mkdir()
    python = folder / "python3"
    python.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "at = sys.argv.index('-c') + 1\n"
        "broken = 'import sys\\nclass Broken:\\n def find_spec(self, name, *more):\\n'\n"
        "broken += '  if name == \"ctypes\": raise MemoryError\\nsys.meta_path.insert(0, Broken())\\n'\n"
        "argv = [*sys.argv[1:at], broken + sys.argv[at], *sys.argv[at + 1:]]\n"
        "os.execv(sys.executable, [sys.executable, *argv])\n"
    )
    python.chmod(0o755)
    env, (name, places) = portable.prefix[0], portable.prefix[1].split("=", 1)
    return replace(portable, prefix=(env, f"{name}={folder}:{places}"))


def test_zeros_are_written_where_python_cannot_punch_holes(
    tmp_path: Path, image: Image, portable: Local
) -> None:
    without = _without_ctypes(portable, tmp_path / "bin")
    source, target = image("source", 4 * MIB), image("target", 4 * MIB)
    overwrite(source, (MIB, bytes(2 * MIB)))
    report = remote.run(PassRequest(source=source, target=target), far="target", transport=without)
    assert target.read_bytes() == source.read_bytes()
    assert (report.bytes_zeroed, report.bytes_written) == (0, 4 * MIB)


def test_a_device_is_written_and_read_past_stale_pages(image: Image, loop: Attach, portable: Local) -> None:
    source, backing = image("source", 4 * MIB), image("backing", 6 * MIB)
    target = loop(backing, "--sector-size", 4096)
    request = PassRequest(block_size=BLOCK, source=source, target=target, target_offset=MIB)
    remote.run(request, far="target", transport=portable)
    assert backing.read_bytes()[MIB : 5 * MIB] == source.read_bytes()
    # Behind the page cache of the device, as a guest writes.
    subprocess.run(["cat", target], check=True, stdout=subprocess.DEVNULL)
    overwrite(backing, (2 * MIB, b"guest"))
    os.sync()
    assert remote.run(request, far="target", transport=portable).bytes_changed == BLOCK
    assert backing.read_bytes()[MIB : 5 * MIB] == source.read_bytes()


def test_a_mounted_device_is_refused(image: Image, mounted_loop: Path, portable: Local) -> None:
    held = mounted_loop.read_bytes()
    error = refusal(PassRequest(source=image("source", MIB), target=mounted_loop), portable)
    assert isinstance(error, Refused)
    assert (error.guard, "mountpoint" in error.cause) == ("mounted", True)
    assert mounted_loop.read_bytes() == held


def test_a_device_that_the_kernel_holds_is_refused_whoever_it_is(
    image: Image, loop: Attach, portable: Local
) -> None:
    target = loop(image("backing", 4 * MIB))
    fd = os.open(target, os.O_RDONLY | os.O_EXCL)
    try:
        error = refusal(PassRequest(source=image("source", MIB), target=target), portable)
    finally:
        os.close(fd)
    assert isinstance(error, Refused)
    assert error.guard == "held"


def test_a_file_in_use_is_refused(image: Image, loop: Attach, portable: Local) -> None:
    source, attached, written = image("source", MIB), image("attached", 4 * MIB), image("written", 4 * MIB)
    loop(attached)
    with written.open("r+b"):
        found = [
            refusal(PassRequest(source=source, target=target), portable) for target in (attached, written)
        ]
    assert [error.guard for error in found if isinstance(error, Refused)] == ["held", "open"]


def test_a_foreign_signature_is_refused_and_the_source_s_own_is_not(tmp_path: Path, portable: Local) -> None:
    source, target, other = (tmp_path / name for name in ("source", "target", "other"))
    for path in (source, other):
        path.write_bytes(bytes(SIZE))
        subprocess.run(["mkfs.ext4", "-q", path], check=True)
    target.write_bytes(bytes(SIZE))
    for _ in range(2):
        remote.run(PassRequest(source=source, target=target), far="target", transport=portable)
    held = other.read_bytes()
    error = refusal(PassRequest(source=source, target=other), portable)
    assert isinstance(error, Refused)
    assert error.guard == "signature"
    assert other.read_bytes() == held
    overridden = PassRequest(source=source, target=other, overrides=frozenset({"signature"}))
    remote.run(overridden, far="target", transport=portable)
    assert other.read_bytes() == source.read_bytes()


def test_what_does_not_fit_is_refused(tmp_path: Path, image: Image, portable: Local) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    requests = [
        PassRequest(source=source, target=target, target_offset=4096),
        PassRequest(source=source, target=target, target_offset=100, size=MIB),
    ]
    found = [refusal(request, portable) for request in requests]
    assert [error.guard for error in found if isinstance(error, Refused)] == ["size", "alignment"]
    missing = refusal(PassRequest(source=source, target=tmp_path / "missing"), portable)
    assert isinstance(missing, Usage)
    assert not (tmp_path / "missing").exists()


@contextmanager
def shown_inside(root: Path, device: Path) -> Iterator[None]:
    """The device that another root directory shows by the same name."""
    node = root / "dev" / device.name
    node.unlink(missing_ok=True)
    os.mknod(node, 0o60600, device.stat().st_rdev)
    proc = root / "proc"
    subprocess.run(["mount", "-t", "proc", "proc", proc], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", proc], check=True)
        node.unlink()


def test_debian_11_with_python_2_is_a_target_too(
    tmp_path: Path, image: Image, loop: Attach, mounted_loop: Path
) -> None:
    if not shutil.which("chroot") or not (OLD_DEBIAN / "usr/bin/python2.7").exists():
        pytest.skip("Debian 11's Python 2.7 is made by test_portable_agent.py")
    transport = Local(prefix=("chroot", str(OLD_DEBIAN)))
    source, backing = image("source", SIZE), image("backing", 6 * MIB)
    overwrite(source, (MIB, bytes(MIB)))
    target = loop(backing)
    request = PassRequest(block_size=BLOCK, source=source, target=target, digests=tmp_path / "digests")
    with shown_inside(OLD_DEBIAN, target):
        remote.run(request, far="target", transport=transport)
        assert backing.read_bytes()[:SIZE] == source.read_bytes()
        overwrite(source, (5, b"changed"))
        second = remote.run(request, far="target", transport=transport)
        proof = remote.compare(source, target, far="target", transport=transport)
    assert second.bytes_changed == BLOCK
    assert backing.read_bytes()[:SIZE] == source.read_bytes()
    assert (proof.equal, proof.hash) == (True, "sha256")
    with shown_inside(OLD_DEBIAN, mounted_loop):
        # Another root's mounts are not told there; the kernel's claim is enough.
        unsigned = frozenset({"signature"})
        error = refusal(PassRequest(source=source, target=mounted_loop, overrides=unsigned), transport)
    assert isinstance(error, Refused)
    assert error.guard == "held"
