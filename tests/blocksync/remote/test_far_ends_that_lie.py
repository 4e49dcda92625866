"""What a far end says before a pass: other protocols, numbers and texts that no device has."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from played_links import PlayedTransport

from blocksync import remote
from blocksync.agent import installed
from blocksync.digests.hashes import BLAKE3
from blocksync.errors import BlocksyncError, Failed, Refused, Usage
from blocksync.passes import PassRequest
from blocksync.remote import far_end
from blocksync.wire.conversation import say
from blocksync.wire.link import Link
from blocksync.wire.messages import Done, FarDevice, Hello, Message, Ready
from local_transport import Local

MIB = 2**20
Lie = Callable[..., None]


@pytest.fixture
def lie(monkeypatch: pytest.MonkeyPatch) -> Lie:
    """Have the far end say something else: `lie(FarDevice, size=1)`."""

    def tell(kind: type, **fields: object) -> None:
        def lying(link: Link, message: Message) -> None:
            say(link, structs.replace(message, **fields) if isinstance(message, kind) else message)

        monkeypatch.setattr(installed, "say", lying)

    return tell


@pytest.mark.parametrize("size", [2**60, 2**63 - 1])
@pytest.mark.parametrize("remembers", [True, False])
def test_a_size_that_needs_more_memory_than_there_is_makes_no_file(
    tmp_path: Path, image: Callable[[str, int], Path], lie: Lie, size: int, remembers: bool
) -> None:
    lie(FarDevice, size=size)
    target = tmp_path / "target"
    request = PassRequest(
        source=image("source", MIB), target=target, digests=tmp_path / "digests" if remembers else None
    )
    with pytest.raises(Refused) as refused:
        remote.run(request, far="source", transport=PlayedTransport())
    assert refused.value.guard == "size"
    assert not target.exists()


@pytest.mark.parametrize("far", ["source", "target"])
def test_an_identity_cannot_write_on_the_terminal(
    tmp_path: Path, image: Callable[[str, int], Path], lie: Lie, far: str
) -> None:
    request = PassRequest(
        source=image("source", MIB), target=image("target", MIB), digests=tmp_path / "digests"
    )
    remote.run(request, far=far, transport=PlayedTransport())
    lie(FarDevice, identity="\x1b]0;a title\x07\x1b[2J")
    report = remote.run(request, far=far, transport=PlayedTransport())
    assert "is about another" in report.notes[0]
    assert report.notes[0].isprintable()


@pytest.mark.parametrize("stamp", ["two words", "a line\n", "\x1b[2J", "\u2028"])
@pytest.mark.parametrize("kind", [FarDevice, Ready, Done])
def test_a_stamp_that_would_tear_the_history_of_a_target_is_refused(
    tmp_path: Path, image: Callable[[str, int], Path], lie: Lie, kind: type, stamp: str
) -> None:
    request = PassRequest(
        source=image("source", MIB), target=image("target", MIB), digests=tmp_path / "digests"
    )
    lie(kind, stamp=stamp)
    with pytest.raises(BlocksyncError) as broken:
        remote.run(request, far="target", transport=PlayedTransport())
    assert isinstance(broken.value, Failed)
    assert "breaks the protocol" in broken.value.cause


@pytest.mark.parametrize("far", ["source", "target"])
def test_another_protocol_is_told_and_nothing_is_written(
    image: Callable[[str, int], Path], lie: Lie, far: str
) -> None:
    source, target = image("source", MIB), image("target", MIB)
    held = target.read_bytes()
    lie(Hello, protocol=2)
    with pytest.raises(Failed) as failed:
        remote.run(PassRequest(source=source, target=target), far=far, transport=PlayedTransport())
    assert "protocol 2" in failed.value.cause
    assert "same release" in failed.value.way_out
    assert target.read_bytes() == held


@pytest.mark.parametrize("words", ["Welcome to this host", "\\033[2Jgone"])
def test_a_shell_that_prints_something_is_quoted(image: Callable[[str, int], Path], words: str) -> None:
    noisy = Local(prefix=("sh", "-c", f'printf "{words}"; exec "$@"', "sh"))
    request = PassRequest(source=image("source", MIB), target=image("target", MIB))
    with pytest.raises(Failed) as failed:
        remote.run(request, far="source", transport=noisy)
    assert "instead of a greeting" in failed.value.cause
    assert failed.value.cause.isprintable()


def test_a_host_that_never_says_a_first_word_is_given_up(
    image: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocksync.remote.far_end.PATIENCE_AT_FIRST", 0.5)
    monkeypatch.setattr("blocksync.remote.far_end._END_SECONDS", 0.1)
    mute = Local(prefix=("sh", "-c", "sleep 60"))
    request = PassRequest(source=image("source", MIB), target=image("target", MIB))
    with pytest.raises(Failed, match="nothing moved"):
        remote.run(request, far="source", transport=mute, patience=60)


def test_only_what_nobody_can_make_collide_stands_in_for_blake3(
    image: Callable[[str, int], Path], lie: Lie
) -> None:
    source, target = image("source", MIB), image("target", MIB)
    request = PassRequest(source=source, target=target)
    lie(Hello, hashes=("md5", "sha1"))
    with pytest.raises(Usage, match="none of the hashes"):
        remote.run(replace(request, hash=BLAKE3), far="source", transport=PlayedTransport())
    assert remote.run(request, far="source", transport=PlayedTransport()).bytes_changed == MIB
    lie(Hello, hashes=("md5", "sha256"))
    request = replace(request, hash=BLAKE3)
    assert remote.run(request, far="source", transport=PlayedTransport()).bytes_changed == 0


@pytest.mark.parametrize(
    "begin",
    ["", r"\000BSWIRE1", r"\000BSLOAD1", r"\000BSWIRE1\001"],
    ids=["nothing", "greeting", "loader", "hello"],
)
def test_a_far_end_that_drips_is_given_up_before_it_introduced_itself(
    image: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    monkeypatch.setattr(far_end, "PATIENCE_AT_FIRST", 0.5)
    # A link that is closed here needs as long for its last words.
    monkeypatch.setattr(far_end, "_END_SECONDS", 0.2)
    drip = f"printf '{begin}'; while :; do printf '\\000'; sleep 0.1; done"
    transport = Local(prefix=("sh", "-c", drip, "sh"))
    request = PassRequest(source=image("source", MIB), target=image("target", MIB))
    began = time.monotonic()
    with pytest.raises(Failed):
        remote.run(request, far="source", transport=transport)
    assert time.monotonic() - began < 10
