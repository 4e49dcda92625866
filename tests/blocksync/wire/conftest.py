"""Two ends of a wire in one process."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from played_ends import BLOCK, BLOCKS, SIZE, Serve, Served

from blocksync.devices import device, target
from blocksync.digests.hashes import XXH3
from blocksync.ends.source import Sending, SourceEnd
from blocksync.ends.target import Receiving, TargetEnd
from blocksync.ends.thread_group import Crew
from blocksync.wire import frames
from blocksync.wire.link import Link


@pytest.fixture
def wire() -> Iterator[Callable[..., tuple[Link, Link]]]:
    """Two links that are each other's far end."""
    opened: list[socket.socket] = []

    def connect(patience: float = 5.0) -> tuple[Link, Link]:
        ours, theirs = socket.socketpair()
        opened.extend((ours, theirs))
        links = tuple(
            Link(end.fileno(), end.fileno(), peer=name, patience=patience)
            for end, name in ((ours, "their end"), (theirs, "our end"))
        )
        return links[0], links[1]

    yield connect
    for end in opened:
        end.close()


@pytest.fixture
def serve_target(tmp_path: Path, wire: Callable[..., tuple[Link, Link]]) -> Iterator[Serve]:
    """A target's end of ours over a file of random bytes, with room before and behind the range; or over the
    range of a file that is there.
    """
    with ExitStack() as stack:

        def serve(size: int = SIZE, **options: object) -> Served:
            ours, theirs = wire()
            path = tmp_path / "target"
            if not path.exists():
                path.write_bytes(bytes(BLOCK) + os.urandom(size) + bytes(BLOCK))
            opened = stack.enter_context(target.open_target(device.measure(path), direct=False))
            terms = frames.terms(size, BLOCK, XXH3.size)
            changed, gates, crew = bytearray(-(-terms.all_blocks // 8)), [], Crew()
            receiving = Receiving(
                **{
                    "opened": opened,
                    "base": BLOCK,
                    "terms": terms,
                    "hash": XXH3,
                    "extents": [(0, size)],
                    "table": None,
                    "changed": changed,
                    "gate": lambda: gates.append("opened"),
                }
                | options
            )
            end = TargetEnd(ours, crew, receiving)
            end.start()
            served = Served(ours, end, crew, theirs, terms, path, changed, gates)
            stack.callback(served.close)
            return served

        yield serve


@pytest.fixture
def serve_source(tmp_path: Path, wire: Callable[..., tuple[Link, Link]]) -> Iterator[Serve]:
    """A source's end of ours over a file of random bytes."""
    with ExitStack() as stack:

        def serve(**options: object) -> Served:
            ours, theirs = wire()
            path = tmp_path / "source"
            path.write_bytes(os.urandom(SIZE))
            opened = stack.enter_context(device.open_source(device.measure(path), direct=False))
            terms = frames.terms(SIZE, BLOCK, XXH3.size)
            changed, gates, crew = bytearray(2), [], Crew()
            sending = Sending(
                **{
                    "opened": opened,
                    "terms": terms,
                    "hash": XXH3,
                    "extents": [(0, SIZE)],
                    "table": memoryview(bytearray(BLOCKS * XXH3.size)),
                    "changed": changed,
                    "codecs": (),
                    "gate": lambda: gates.append("opened"),
                }
                | options
            )
            end = SourceEnd(ours, crew, sending)
            end.start()
            served = Served(ours, end, crew, theirs, terms, path, changed, gates)
            stack.callback(served.close)
            return served

        yield serve
