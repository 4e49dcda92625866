"""Passes whose source or target is on another host.

`run(request, far="source", transport=...)` is `blocksync.passes.run` for two hosts: the same request, whose
far path is one there, and the same report. `run_several(parts, transport=...)` pulls several volumes into one
target at the same time. `compare(source, target, far=..., transport=...)` proves that a target is equal to a
source, one of which is there.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blocksync.remote.comparing import compare
    from blocksync.remote.parallel import PassPart, run_several
    from blocksync.remote.passes import run

__all__ = ["PassPart", "compare", "run", "run_several"]

_HOMES = {"PassPart": "parallel", "compare": "comparing", "run": "passes", "run_several": "parallel"}


def __getattr__(name: str) -> object:
    # Imported on first use: a pass does not wait for what proofs need.
    if name not in _HOMES:
        raise AttributeError(f"module 'blocksync.remote' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"blocksync.remote.{_HOMES[name]}"), name)
