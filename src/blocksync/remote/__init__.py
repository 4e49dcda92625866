"""Passes whose source or target is on another host.

`run(request, far="source", transport=...)` is `blocksync.run` for two hosts: the same request, whose far
path is one there, and the same report. `compare(source, target, transport=...)` proves that a target here is
equal to a source there.
"""

from blocksync.remote.comparing import compare
from blocksync.remote.passes import run

__all__ = ["compare", "run"]
