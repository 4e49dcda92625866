"""Passes whose source or target is on another host.

`run(request, far="source", transport=...)` is `blocksync.run` for two hosts: the same request, whose far
path is one there, and the same report.
"""

from blocksync.remote.passes import run

__all__ = ["run"]
