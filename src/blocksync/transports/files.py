"""Put a file on another host with nothing there but a shell."""

import os
from collections.abc import Callable, Sequence

from blocksync.errors import Failed
from blocksync.hosts.name import HostName
from blocksync.transports import command_line
from blocksync.transports.failures import last_words
from blocksync.transports.interface import Channel

_SECONDS = 60.0


def put(
    run: Callable[[Sequence[str]], Channel], host: HostName, content: bytes, path: str, mode: int
) -> None:
    """Make `path` on the host hold `content` with permission bits `mode`, whole or not at all.

    A path that is not absolute is taken from the user's home. Raises Failed with the host's own words.
    """
    channel = run(command_line.put(path, mode, len(content)))
    try:
        _send(channel, content)
        status = channel.wait(_SECONDS)
    except TimeoutError as error:
        way_out = "see whether the host hangs, then run the command again"
        raise Failed(f"{host}:{path}", f"not written within {_SECONDS:g} s", way_out) from error
    finally:
        said = last_words(channel.stderr_tail())
        channel.close()
    if status != 0:
        cause = f"not written: {said or f'the command there ended with {status}'}"
        raise Failed(f"{host}:{path}", cause, "see that its folder exists, is writable and has space")


def _send(channel: Channel, content: bytes) -> None:
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(channel.stdin.fileno(), rest) :]
        channel.stdin.close()
    except BrokenPipeError:
        # The command ended before it read all; its status and its words say why.
        return
