"""What a far source keeps ready is used, and what of it has ended is made anew."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kept_channels import KeptChannels

from blocksync.passes import PassRequest
from blocksync.remote import PassPart
from orchestrate.copying.source import Far

SIZE = 1 << 20


@pytest.fixture
def transport() -> KeptChannels:
    return KeptChannels()


@pytest.fixture
def far(transport: KeptChannels) -> Iterator[Far]:
    source = Far(transport)
    yield source
    source.close()


@pytest.fixture
def parts(tmp_path: Path) -> list[PassPart]:
    """Two volumes into one target."""
    target = tmp_path / "target"
    target.write_bytes(bytes(2 * SIZE))
    found = []
    for number in range(2):
        volume = tmp_path / f"volume{number}"
        volume.write_bytes(os.urandom(SIZE))
        request = PassRequest(source=volume, target=target, target_offset=number * SIZE, size=SIZE)
        found.append(PassPart(request, lambda _: None))
    return found


def copied(parts: list[PassPart]) -> bool:
    volumes = b"".join(part.request.source.read_bytes() for part in parts)
    return parts[0].request.target.read_bytes() == volumes


def test_passes_begin_with_the_agents_that_wait(
    far: Far, transport: KeptChannels, parts: list[PassPart]
) -> None:
    far.make_ready(len(parts))
    assert len(transport.channels) == len(parts)
    far.copy_all(parts)
    assert copied(parts)
    assert len(transport.channels) == len(parts), "none was started for the passes"


def test_an_agent_that_ended_while_it_waited_is_made_anew(
    far: Far, transport: KeptChannels, parts: list[PassPart]
) -> None:
    far.make_ready(len(parts))
    transport.cut()
    far.copy_all(parts)
    assert copied(parts)
    assert len(transport.channels) == 2 * len(parts)


def test_no_more_wait_than_a_connection_has_room_for(far: Far, transport: KeptChannels) -> None:
    far.make_ready(20)
    far.make_ready(20)
    assert len(transport.channels) == 4


def test_nothing_is_left_at_the_end(far: Far, transport: KeptChannels) -> None:
    far.host.run(["true"])
    far.make_ready(2)
    far.close()
    assert all(channel.wait(10) is not None for channel in transport.channels)
