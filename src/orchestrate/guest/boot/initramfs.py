"""What an initramfs holds: a kernel whose disk driver is a module finds no disk without it.

Sources: the kernel's driver-api/early-userspace/buffer-format (archives one after the other, each alone or
compressed, zero bytes between them), cpio(5) ("new ASCII format"), and lz4's legacy frame, in which the
kernel's `lz4 -l` writes. What is read is a guest's and not to be trusted: it is taken apart as it is
decompressed, piece by piece, and bytes, names and time are bounded.
"""

import bz2
import lzma
import posixpath
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import lz4.block  # type: ignore[import-untyped]
import zstandard

from blocksync.errors import Failed
from orchestrate.guest.boot.kernels import Kernel
from orchestrate.guest.files.reading import Reading

_NEEDED = ("virtio_blk", "virtio_pci")
# Of what comes out of it: ten times the largest seen. A kernel passes over longer names.
_MOST_BYTES, _MOST_NAMES, _LONGEST_NAME = 1 << 30, 1 << 17, 4096
_MOST_SECONDS = 30.0
_PIECE, _GLANCE = 1 << 20, 1 << 12
# What a decompressor may want for itself: `xz -9` needs half of it, and a kernel gives zstd no more.
_MOST_MEMORY = 1 << 27
_HEADER = 110
_NUMBER = re.compile(rb"[0-9A-Fa-f]{8}")
_LZ4_LEGACY, _LZ4_BLOCK = b"\x02\x21\x4c\x18", 8 << 20
# dracut's option to put everything into a file system image hides its names from an archive's listing.
_SQUASHED = ("squashfs-root.img", "squash-root.img")


class Images(Reading, Protocol):
    """A guest's files, an initramfs among them, which is larger than any configuration file."""

    def image(self, path: str) -> bytes | None:
        """Content of a file in /boot, of any size that the host gives; None when it is no regular file."""


def warnings(guest: Images, kernels: Sequence[Kernel]) -> tuple[str, ...]:
    """A sentence for each of `kernels` that may find no virtio disk, and why."""
    return tuple(warning for warning in (_warning(guest, kernel) for kernel in kernels) if warning)


def _warning(guest: Images, kernel: Kernel) -> str | None:
    wanted = set(_NEEDED) - _built_in(guest, kernel.version)
    if not wanted or kernel.initrd is None:
        return None
    try:
        image = guest.image(kernel.initrd)
        missing = wanted - modules(names(image or b""))
    except (Failed, ValueError) as error:
        return (
            f"{kernel.initrd} could not be looked into ({error}): whether it has virtio's drivers is unknown"
        )
    if not missing:
        return None
    return (
        f"{kernel.initrd} lacks {', '.join(sorted(missing))}: kernel {kernel.version} would find no disk "
        "under KVM; run `xen2kvm prepare` on the guest while it runs under Xen"
    )


def _built_in(guest: Reading, version: str) -> frozenset[str]:
    """Of the needed modules, those inside the kernel: by its configuration, or else by its own list."""
    config = guest.read(f"/boot/config-{version}")
    if config is not None:
        lines = config.splitlines()
        return frozenset(each for each in _NEEDED if f"CONFIG_{each.upper()}=y".encode() in lines)
    listed = guest.read(f"/lib/modules/{version}/modules.builtin") or b""
    return modules(listed.decode(errors="replace").splitlines())


def modules(paths: Sequence[str]) -> frozenset[str]:
    """The kernel modules among paths, by their names with underscores ("virtio_blk")."""
    found = (posixpath.basename(path).split(".ko") for path in paths)
    return frozenset(parts[0].replace("-", "_") for parts in found if len(parts) == 2)


def names(image: bytes) -> tuple[str, ...]:
    """Every path in an initramfs. Raises ValueError for what is none, is damaged, or hides its names."""
    found: list[str] = []
    content = memoryview(image)
    plain = _Bytes(_pieces_of(content))
    while start := plain.next_byte():
        if start != b"0":
            # What follows a compressed archive would be another one; none of the makers does that.
            packed = _Bytes(_decompressed(content[plain.place :]))
            while packed.next_byte():
                _archive(packed, found)
            break
        _archive(plain, found)
    if not found:
        raise ValueError("it holds no archive")
    if any(posixpath.basename(path) in _SQUASHED for path in found):
        raise ValueError("its files are inside a file system image")
    return tuple(found)


class _Bytes:
    """Bytes that come in pieces, read once and in order; `place` is how many were read.

    Raises ValueError when more come than any initramfs has, or when they take too long.
    """

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self.place = 0
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._until = time.monotonic() + _MOST_SECONDS

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        taken = bytearray()
        while len(taken) < count:
            self._fill()
            part = self._piece[: count - len(taken)]
            taken += part
            self._leave(len(part))
        return bytes(taken)

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        while count:
            self._fill()
            part = min(count, len(self._piece))
            self._leave(part)
            count -= part

    def next_byte(self) -> bytes:
        """The next byte that is not zero, which stays to be read; nothing at the end."""
        while self._there():
            glance = self._piece[:_GLANCE].tobytes()
            rest = glance.lstrip(b"\0")
            self._leave(len(glance) - len(rest))
            if rest:
                return rest[:1]
        return b""

    def _fill(self) -> None:
        if not self._there():
            raise ValueError("its archive ends too early")

    def _there(self) -> bool:
        """Whether a byte is left, having it at hand."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece = memoryview(piece)
            if self.place + len(piece) > _MOST_BYTES:
                raise ValueError("it is larger than 1 GiB")
            if time.monotonic() > self._until:
                raise ValueError(f"to take it apart takes longer than {_MOST_SECONDS:g} s")
        return True

    def _leave(self, count: int) -> None:
        self._piece = self._piece[count:]
        self.place += count


def _pieces_of(content: memoryview) -> Iterator[memoryview]:
    return (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))


def _archive(content: _Bytes, found: list[str]) -> None:
    """Read the names of one archive, to its trailer or to the end."""
    began = content.place
    while content.place == began or content.next_byte():
        header = content.take(_HEADER)
        if header[:6] not in {b"070701", b"070702"}:
            raise ValueError("its archive is damaged")
        size, length = _number(header[54:62]), _number(header[94:102])
        if length > _LONGEST_NAME:
            raise ValueError(f"its archive has a name of {length} bytes")
        name = content.take(length).rstrip(b"\0").decode(errors="replace")
        # What follows a name is padded; the zeros behind one without content are passed over above.
        content.skip(_gap(_HEADER + length) if size else 0)
        if name == "TRAILER!!!":
            return
        if len(found) == _MOST_NAMES:
            raise ValueError(f"it has more than {_MOST_NAMES} names")
        found.append(name)
        content.skip(size + _gap(size) if size else 0)


def _number(digits: bytes) -> int:
    # int() takes signs, blanks and underscores as well.
    if not _NUMBER.fullmatch(digits):
        raise ValueError("its archive is damaged")
    return int(digits, 16)


def _gap(length: int) -> int:
    """Bytes that follow so many, up to a multiple of four."""
    return -length % 4


def _decompressed(content: memoryview) -> Iterator[bytes]:
    """What comes out of a compressed archive, in pieces."""
    start = content[:8].tobytes()
    decompress = next((each for magic, each in _FORMATS.items() if start.startswith(magic)), None)
    if decompress is None:
        raise ValueError("it is compressed in no way known here")
    try:
        yield from decompress(content)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, MemoryError, zstandard.ZstdError) as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
    except (lz4.block.LZ4BlockError, struct.error) as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error


def _gzip(content: memoryview) -> Iterator[bytes]:
    unpacking = zlib.decompressobj(wbits=31)
    for packed in _pieces_of(content):
        rest: bytes | memoryview = packed
        while rest and not unpacking.eof:
            yield unpacking.decompress(rest, _PIECE)
            rest = unpacking.unconsumed_tail


def _lzma(content: memoryview) -> Iterator[bytes]:
    return _in_turn(lzma.LZMADecompressor(memlimit=_MOST_MEMORY), content)


def _bzip2(content: memoryview) -> Iterator[bytes]:
    return _in_turn(bz2.BZ2Decompressor(), content)


def _in_turn(unpacking: lzma.LZMADecompressor | bz2.BZ2Decompressor, content: memoryview) -> Iterator[bytes]:
    for packed in _pieces_of(content):
        if not unpacking.eof:
            yield unpacking.decompress(packed, _PIECE)
        while not unpacking.eof and not unpacking.needs_input:
            yield unpacking.decompress(b"", _PIECE)


def _zstd(content: memoryview) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_MOST_MEMORY).stream_reader(content)
    return iter(lambda: reader.read(_PIECE), b"")


def _lz4(content: memoryview) -> Iterator[bytes]:
    place = len(_LZ4_LEGACY)
    while place + 4 <= len(content):
        (size,) = struct.unpack_from("<I", content, place)
        if size == 0 or place + 4 + size > len(content):
            break
        yield lz4.block.decompress(content[place + 4 : place + 4 + size], uncompressed_size=_LZ4_BLOCK)
        place += 4 + size


_FORMATS: dict[bytes, Callable[[memoryview], Iterator[bytes]]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\x00": _lzma,
    b"]\x00\x00": _lzma,
    b"BZh": _bzip2,
    b"\x28\xb5\x2f\xfd": _zstd,
    _LZ4_LEGACY: _lz4,
}
