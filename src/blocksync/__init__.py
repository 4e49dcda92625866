"""The engine: devices, extents and digests. It knows nothing of guests."""
