"""The portable agent: pulled from with every Python that is here, small, gone without a trace."""

import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from blocksync import remote
from blocksync.agent import bootstrap, portable_agent
from blocksync.digests.hashes import BLAKE3
from blocksync.errors import Refused, Usage
from blocksync.extents import Extents
from blocksync.passes import PassRequest
from blocksync.wire import frames
from blocksync.wire.frames import FrameKind
from local_transport import Local

MIB = 2**20
BLOCK = 65536
SIZE = 3 * MIB + 4321
CACHE = Path(__file__).parents[3] / ".cache"
OLD_DEBIAN = CACHE / "bullseye-python2.7"

Image = Callable[[str, int], Path]
Attach = Callable[..., Path]
WithOnly = Callable[[Path], Local]


def pythons() -> list[Path]:
    """This Python, and every other of the system's and of pyenv's."""
    names = [f"python3.{minor}" for minor in range(4, 20)] + ["python2.7", "python2.6"]
    found = {Path(path).resolve() for path in map(shutil.which, names) if path and "shims" not in path}
    found |= {path.resolve() for path in (Path.home() / ".pyenv/versions").glob("*/bin/python")}
    return sorted(found | {Path(sys.executable).resolve()})


@pytest.fixture(scope="session")
def old_debian() -> Path:
    """Debian 11 with its Python 2.7, made once."""
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    if not (OLD_DEBIAN / "usr/bin/python2.7").exists():
        fresh = OLD_DEBIAN.with_name(f"{OLD_DEBIAN.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(exist_ok=True)
        wanted = ["--variant=minbase", "--include=python2.7"]
        subprocess.run(["debootstrap", *wanted, "bullseye", fresh], check=True, capture_output=True)
        fresh.rename(OLD_DEBIAN)
    return OLD_DEBIAN


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("python", pythons(), ids=str)
def test_a_pass_from_any_python_copies_what_changed(
    tmp_path: Path, image: Image, with_only: WithOnly, python: Path
) -> None:
    source, target = image("source", SIZE), tmp_path / "target"
    overwrite(source, MIB, bytes(MIB))
    request = PassRequest(source=source, target=target, digests=tmp_path / "digests")
    transport = with_only(python)
    first = remote.run(request, far="source", transport=transport)
    assert target.read_bytes() == source.read_bytes()
    assert first.bytes_written == SIZE - MIB
    overwrite(source, 2 * MIB + 5, b"changed")
    overwrite(source, SIZE - 7, b"changed")
    second = remote.run(request, far="source", transport=transport)
    assert target.read_bytes() == source.read_bytes()
    block = second.block_size
    assert (second.bytes_changed, second.target_bytes_read) == (block + SIZE % block, 0)


def test_a_pass_from_debian_11_with_python_2_reads_devices_directly(
    tmp_path: Path, image: Image, loop: Attach, old_debian: Path
) -> None:
    # The device that another root directory shows by the same name.
    backing = image("source", 4 * MIB)
    source, target = loop(backing), tmp_path / "target"
    node = old_debian / "dev" / source.name
    node.unlink(missing_ok=True)
    number = source.stat().st_rdev
    os.mknod(node, 0o60600, number)
    transport = Local(prefix=("chroot", str(old_debian)))
    request = PassRequest(block_size=BLOCK, source=source, target=target, digests=tmp_path / "digests")
    try:
        remote.run(request, far="source", transport=transport)
        assert target.read_bytes() == backing.read_bytes()
        subprocess.run(["cat", source], check=True, stdout=subprocess.DEVNULL)
        overwrite(backing, MIB, b"guest")
        os.sync()
        second = remote.run(request, far="source", transport=transport)
    finally:
        node.unlink()
    assert second.bytes_changed == BLOCK
    assert target.read_bytes() == backing.read_bytes()


def test_the_hash_is_the_best_of_both_ends(tmp_path: Path, image: Image, with_only: WithOnly) -> None:
    transport = with_only(Path(sys.executable).resolve())
    source, target = image("source", SIZE), tmp_path / "target"
    target.write_bytes(source.read_bytes())
    proof = remote.compare(source, target, transport=transport)
    assert (proof.equal, proof.hash) == (True, "blake2b")
    overwrite(source, 70000, b"x")
    proof = remote.compare(source, target, transport=transport)
    assert proof.differing.pairs() == [(BLOCK, BLOCK)]
    request = PassRequest(
        block_size=BLOCK, source=source, target=target, hash=BLAKE3, digests=tmp_path / "digests"
    )
    assert remote.run(request, far="source", transport=transport).bytes_changed == BLOCK


def test_only_the_given_extents_are_looked_at(tmp_path: Path, image: Image, with_only: WithOnly) -> None:
    source, target = image("source", SIZE), image("target", SIZE)
    only = Extents.of([(70000, 10), (2 * MIB, 2 * BLOCK)])
    request = PassRequest(block_size=BLOCK, source=source, target=target, only=only)
    report = remote.run(request, far="source", transport=with_only(Path(sys.executable).resolve()))
    assert (report.bytes_total, report.bytes_changed, report.bytes_read) == (3 * BLOCK,) * 3
    wanted = source.read_bytes()
    assert target.read_bytes()[BLOCK:131072] == wanted[BLOCK:131072]
    assert target.read_bytes()[:BLOCK] != wanted[:BLOCK]


def test_a_snapshot_is_known_by_its_origin(tmp_path: Path, image: Image, with_only: WithOnly) -> None:
    far = with_only(Path(sys.executable))
    origin, target, file = image("origin", SIZE), tmp_path / "target", tmp_path / "digests"
    for name in ("first", "second"):
        snapshot = tmp_path / name
        snapshot.write_bytes(origin.read_bytes())
        request = PassRequest(source=snapshot, origin=origin, target=target, digests=file)
        report = remote.run(request, far="source", transport=far)
        assert report.notes == ()
    assert report.bytes_changed == 0


def test_errors_of_the_far_host_are_told(tmp_path: Path, image: Image, with_only: WithOnly) -> None:
    transport = with_only(Path(sys.executable).resolve())
    missing = PassRequest(source=tmp_path / "missing", target=tmp_path / "target")
    with pytest.raises(Usage, match="No such file"):
        remote.run(missing, far="source", transport=transport)
    small = PassRequest(source=image("source", SIZE), target=tmp_path / "target", size=SIZE + 1)
    with pytest.raises(Refused):
        remote.run(small, far="source", transport=transport)
    assert not (tmp_path / "target").exists()


def test_a_foreign_signature_is_refused_and_the_source_s_own_is_not(
    tmp_path: Path, with_only: WithOnly
) -> None:
    transport = with_only(Path(sys.executable).resolve())
    source, target, other = (tmp_path / name for name in ("source", "target", "other"))
    for path in (source, other):
        path.write_bytes(bytes(SIZE))
        subprocess.run(["mkfs.ext4", "-q", path], check=True)
    for _ in range(2):
        remote.run(PassRequest(source=source, target=target), far="source", transport=transport)
    with pytest.raises(Refused) as caught:
        remote.run(PassRequest(source=source, target=other), far="source", transport=transport)
    assert caught.value.guard == "signature"


def test_nothing_is_left_behind(tmp_path: Path, image: Image, with_only: WithOnly) -> None:
    transport = with_only(Path(sys.executable).resolve())
    home = tmp_path / "home"
    home.mkdir()
    watched = Local(prefix=(*transport.prefix, f"HOME={home}", f"TMPDIR={home}"))
    request = PassRequest(source=image("source", SIZE), target=tmp_path / "target")
    remote.run(request, far="source", transport=watched)
    assert list(home.iterdir()) == []


def test_the_program_and_its_loader_are_small() -> None:
    program = bootstrap.program()
    assert len(program) < 24 * 1024
    assert zlib.decompress(program[4:]) == Path(portable_agent.__file__).read_bytes()
    assert len(" ".join(bootstrap.argv())) < 2048
    assert "\n" not in "".join(bootstrap.argv())


def test_it_is_written_for_python_2_6(tmp_path: Path) -> None:
    pytest.importorskip("vermin", reason="vermin says which Python a source needs")
    program = "import sys, vermin; vermin.main()"
    words = ["-t=2.6-", "-t=3.0-", "--no-tips", portable_agent.__file__]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_it_speaks_the_same_numbers_as_the_native_end() -> None:
    ours = {name: value for name, value in vars(portable_agent).items() if name in FrameKind.__members__}
    assert ours == {name: FrameKind[name] for name in ours}
    assert {"DATA", "ZEROS", "DIFFERS", "DIGESTS", "TOTALS", "ALIVE", "STOP", "DONE"} <= set(ours)
    shared = ("GREETING", "LARGEST_MESSAGE", "MOST_DIGESTS", "MOST_BLOCKS", "SEGMENT")
    for name in shared:
        assert getattr(portable_agent, name) == getattr(frames, name)
    assert portable_agent.HEADER.format == frames.HEADER.format


@pytest.mark.parametrize("python", pythons(), ids=str)
def test_a_file_in_the_folder_of_the_login_is_no_module_of_pythons_own(tmp_path: Path, python: Path) -> None:
    programs, login = tmp_path / "programs", tmp_path / "login"
    for folder in (programs, login):
        folder.mkdir()
    (programs / "python3").symlink_to(python)
    for module in ("struct", "zlib", "os", "json", "hashlib", "threading", "sitecustomize", "usercustomize"):
        (login / f"{module}.py").write_text(f"open({str(login / 'ran')!r}, 'a').write({module!r})\n")
    done = subprocess.run(
        bootstrap.argv(),
        input=bootstrap.program() + frames.GREETING,
        capture_output=True,
        cwd=login,
        env={"PATH": str(programs), "PYTHONPATH": str(login), "HOME": str(login)},
        timeout=30,
        check=False,
    )
    assert done.stdout.startswith(frames.LOADER_GREETING + frames.GREETING), done.stderr
    assert not (login / "ran").exists()
