"""Types of the native reads and writes of a link; its docstrings are in `_flow.pyx`."""

from collections.abc import Sequence

from typing_extensions import Buffer

def fill(fd: int, buffers: Sequence[Buffer], milliseconds: int) -> tuple[int, bool]: ...
def drain(fd: int, buffers: Sequence[Buffer], milliseconds: int) -> int: ...
