"""The engine: devices, extents and digests. It knows nothing of guests.

`run(PassRequest(source=..., target=...))` makes a range of a target equal to a source and returns a
PassReport; `compare(source, target)` proves that they are equal; `measure(path)` tells what a device is.
Sizes and offsets are in bytes everywhere. Errors are in `blocksync.errors`.
"""

# Not from typing: Ctrl-C is heeded once the first module of this package is loaded.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from blocksync.devices.device import Device, measure, read_range
    from blocksync.devices.guards import Signature
    from blocksync.devices.target import create_sparse, write_ranges
    from blocksync.extents import Extents
    from blocksync.passes import PassReport, PassRequest, run
    from blocksync.progress import Progress
    from blocksync.verify import Comparison, compare

__all__ = [
    "Comparison",
    "Device",
    "Extents",
    "PassReport",
    "PassRequest",
    "Progress",
    "Signature",
    "compare",
    "create_sparse",
    "measure",
    "read_range",
    "run",
    "write_ranges",
]

_HOMES = {
    "Comparison": "verify",
    "Device": "devices.device",
    "Extents": "extents",
    "PassReport": "passes",
    "PassRequest": "passes",
    "Progress": "progress",
    "Signature": "devices.guards",
    "compare": "verify",
    "create_sparse": "devices.target",
    "measure": "devices.device",
    "read_range": "devices.device",
    "run": "passes",
    "write_ranges": "devices.target",
}


def __getattr__(name: str) -> object:
    # Imported on first use: a command pays only for what it needs.
    if name not in _HOMES:
        raise AttributeError(f"module 'blocksync' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"blocksync.{_HOMES[name]}"), name)
