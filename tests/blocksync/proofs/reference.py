# Newer ways of writing this are what old hosts do not have.
# ruff: noqa: UP031, PLR0917
"""The reference pass: what the engine does, in the plainest Python there is.

It makes a range of a target equal to a source, block by block, and says what it found. It is slow and short,
and nothing in it is shared with the native core, so that tests can hold the one against the other byte for
byte. It is one file that needs nothing but the standard library of Python 2.6 to 3.13, so that it also runs
on hosts that have nothing newer: no annotations, no f-strings, no `pathlib`; types stand in comments.

Sizes and offsets are in bytes. Files are file descriptors (`os.open`), which regular files and block devices
both give. Nothing here guards the target: whoever calls it knows what the target is.
"""

import collections
import errno
import hashlib
import os

BLOCK_SIZE = 65536
ALGORITHM = "sha256"

# What a pass found. `extents` are the runs of neighbouring blocks that differed, as (offset into the source,
# length); `digests` has one entry a block, of the bytes that the target holds now.
Report = collections.namedtuple("Report", "bytes_total bytes_changed extents digests")


def run(source, target, size, target_offset=0, block_size=BLOCK_SIZE, known=None, algorithm=ALGORITHM):
    # type: (int, int, int, int, int, list[bytes] | None, str) -> Report
    """Make `size` bytes at `target_offset` of the target equal to the source's first ones; durable on return.

    `source` is a descriptor open for reading, `target` one open for both. `known` are the digests of what
    the target holds, from an earlier pass or from `digests`; without them its bytes are compared. Each block
    of the source is read once: the bytes that were judged are the bytes that are written.

    Raises ValueError before anything is written when the range does not fit, OSError when a device fails.
    """
    _check(source, target, size, target_offset, block_size, known)
    extents = []  # type: list[tuple[int, int]]
    found = []  # type: list[bytes]
    at = 0
    while at < size:
        data = read_at(source, at, min(block_size, size - at))
        found.append(digest(data, algorithm))
        if known is not None:
            differs = known[len(found) - 1] != found[-1]
        else:
            differs = read_at(target, target_offset + at, len(data)) != data
        if differs:
            write_at(target, target_offset + at, data)
            add_extent(extents, at, len(data))
        at += len(data)
    os.fsync(target)
    return Report(size, sum(length for _, length in extents), extents, found)


def digests(device, size, offset=0, block_size=BLOCK_SIZE, algorithm=ALGORITHM):
    # type: (int, int, int, int, str) -> list[bytes]
    """One digest for each block of the `size` bytes at `offset`; the last block may be short."""
    found = []
    at = 0
    while at < size:
        data = read_at(device, offset + at, min(block_size, size - at))
        found.append(digest(data, algorithm))
        at += len(data)
    return found


def digest(data, algorithm=ALGORITHM):
    # type: (bytes, str) -> bytes
    """The digest of one block; `algorithm` is a name that hashlib knows."""
    return hashlib.new(algorithm, data).digest()


def add_extent(extents, offset, length):
    # type: (list[tuple[int, int]], int, int) -> None
    """Append an extent that starts at or after the end of the last one; those that touch become one."""
    if extents and sum(extents[-1]) == offset:
        offset, length = extents[-1][0], extents[-1][1] + length
        extents.pop()
    extents.append((offset, length))


def size_of(device):
    # type: (int) -> int
    """How many bytes a file or block device has."""
    return os.lseek(device, 0, os.SEEK_END)


def read_at(device, offset, length):
    # type: (int, int, int) -> bytes
    """Exactly `length` bytes from `offset`. Raises OSError, EIO when the device ends before them."""
    os.lseek(device, offset, os.SEEK_SET)
    parts = []
    while length > 0:
        try:
            data = os.read(device, length)
        except OSError as error:
            # Before Python 3.5 a signal ends a read; it says nothing about the device.
            if error.errno == errno.EINTR:
                continue
            raise
        if not data:
            raise OSError(errno.EIO, "the device ends %d bytes early" % length)
        parts.append(data)
        length -= len(data)
    return b"".join(parts)


def write_at(device, offset, data):
    # type: (int, int, bytes) -> None
    """Write all of `data` at `offset`. Raises OSError."""
    os.lseek(device, offset, os.SEEK_SET)
    while data:
        try:
            data = data[os.write(device, data) :]
        except OSError as error:
            if error.errno != errno.EINTR:
                raise


def _check(source, target, size, target_offset, block_size, known):
    # type: (int, int, int, int, int, list[bytes] | None) -> None
    if size < 0 or target_offset < 0 or block_size < 1:
        raise ValueError("a size or offset is negative")
    if size > size_of(source):
        raise ValueError("the source is smaller than %d bytes" % size)
    if target_offset + size > size_of(target):
        raise ValueError("the target is smaller than %d bytes" % (target_offset + size))
    if known is not None and len(known) != -(-size // block_size):
        raise ValueError("there are %d digests for another number of blocks" % len(known))
