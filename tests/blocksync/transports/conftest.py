"""Fixtures for everything that needs another host."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd import Server, make_keys, start, stop

from blocksync.transports.interface import Channel


@pytest.fixture(scope="session", autouse=True)
def control_sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Control sockets of near ends that a test kills go with the tests' own folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys that every sshd takes its own from."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Server]:
    """An sshd that all tests share."""
    running = start(tmp_path_factory.mktemp("sshd"), keys)
    yield running
    stop(running)


@pytest.fixture
def own_server(tmp_path: Path, keys: Path) -> Iterator[Server]:
    """An sshd that a test may hurt."""
    running = start(tmp_path / "own-sshd", keys)
    yield running
    stop(running)


@pytest.fixture
def exchange() -> Callable[[Channel, bytes], bytes]:
    """Send bytes to a command's standard input while its standard output is read to the end."""

    def both(channel: Channel, sent: bytes) -> bytes:
        def send() -> None:
            rest = memoryview(sent)
            while rest:
                rest = rest[os.write(channel.stdin.fileno(), rest[: 1 << 20]) :]
            channel.stdin.close()

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        received = bytearray()
        while piece := os.read(channel.stdout.fileno(), 1 << 20):
            received += piece
        sender.join(10)
        return bytes(received)

    return both
