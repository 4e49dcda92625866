"""The engine: devices, extents and digests. It knows nothing of guests.

`passes.run(PassRequest(source=..., target=...))` makes a range of a target equal to a source and returns a
PassReport; `verify.compare(source, target)` proves that they are equal; `devices.device.measure(path)` tells
what a device is. Sizes and offsets are in bytes everywhere. Errors are in `blocksync.errors`.
"""
