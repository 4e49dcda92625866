"""What an initramfs holds: a kernel whose disk driver is a module finds no disk without it.

Sources: the kernel's driver-api/early-userspace/buffer-format (archives one after the other, each alone or
compressed, zero bytes between them), cpio(5) ("new ASCII format"), and lz4's legacy frame, in which the
kernel's `lz4 -l` writes. What is read is a guest's and not to be trusted: every size is bounded.
"""

import bz2
import io
import lzma
import posixpath
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import lz4.block  # type: ignore[import-untyped]
import zstandard

from blocksync.errors import Failed
from orchestrate.guest.kernels import Kernel
from orchestrate.guest.reading import Reading

_NEEDED = ("virtio_blk", "virtio_pci")
_MOST_BYTES = 1 << 30
_HEADER = 110
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
    rest = memoryview(image)
    while rest := _without_zeros(rest):
        if rest[:6].tobytes() in {b"070701", b"070702"}:
            end = _archive(rest, found)
            rest = rest[end:]
        else:
            # What follows a compressed archive would be another one; none of the makers does that.
            found += _names_of_archives(_decompressed(rest.tobytes()))
            break
    if not found:
        raise ValueError("it holds no archive")
    if any(posixpath.basename(path) in _SQUASHED for path in found):
        raise ValueError("its files are inside a file system image")
    return tuple(found)


def _names_of_archives(content: bytes) -> list[str]:
    """The paths in uncompressed archives one after the other."""
    found: list[str] = []
    rest = memoryview(content)
    while rest := _without_zeros(rest):
        rest = rest[_archive(rest, found) :]
    return found


def _without_zeros(content: memoryview) -> memoryview:
    """`content` from its first byte that is not zero."""
    for start in range(0, len(content), 1 << 16):
        piece = content[start : start + (1 << 16)].tobytes()
        if stripped := piece.lstrip(b"\0"):
            return content[start + len(piece) - len(stripped) :]
    return content[:0]


def _archive(content: memoryview, found: list[str]) -> int:
    """Read the names of one archive to its trailer; returns where it ends."""
    place = 0
    for name, end in _members(content):
        place = end
        if name == "TRAILER!!!":
            break
        found.append(name)
    return place


def _members(content: memoryview) -> Iterator[tuple[str, int]]:
    place = 0
    while place < len(content):
        header = content[place : place + _HEADER].tobytes()
        if len(header) < _HEADER or header[:6] not in {b"070701", b"070702"}:
            raise ValueError("its archive is damaged")
        size, length = int(header[54:62], 16), int(header[94:102], 16)
        name = content[place + _HEADER : place + _HEADER + length].tobytes()
        place = _aligned(_aligned(place + _HEADER + length) + size)
        if len(name) < length or place > len(content) + 3:
            raise ValueError("its archive ends too early")
        yield name.rstrip(b"\0").decode(errors="replace"), place


def _aligned(place: int) -> int:
    return -(-place // 4) * 4


def _decompressed(content: bytes) -> bytes:
    for magic, decompress in _FORMATS.items():
        if content.startswith(magic):
            try:
                return decompress(content)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, zstandard.ZstdError) as error:
                raise ValueError(f"it cannot be decompressed: {error}") from error
            except (lz4.block.LZ4BlockError, struct.error) as error:
                raise ValueError(f"it cannot be decompressed: {error}") from error
    raise ValueError("it is compressed in no way known here")


def _gzip(content: bytes) -> bytes:
    return _bounded(zlib.decompressobj(wbits=31).decompress(content, _MOST_BYTES))


def _lzma(content: bytes) -> bytes:
    return _bounded(lzma.LZMADecompressor().decompress(content, _MOST_BYTES))


def _bzip2(content: bytes) -> bytes:
    return _bounded(bz2.BZ2Decompressor().decompress(content, _MOST_BYTES))


def _zstd(content: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(content))
    return _bounded(reader.read(_MOST_BYTES))


def _lz4(content: bytes) -> bytes:
    pieces, place, total = [], 4, 0
    while place + 4 <= len(content):
        (size,) = struct.unpack_from("<I", content, place)
        if size == 0 or place + 4 + size > len(content):
            break
        block = lz4.block.decompress(content[place + 4 : place + 4 + size], uncompressed_size=_LZ4_BLOCK)
        pieces.append(block)
        total += len(block)
        place += 4 + size
        if total >= _MOST_BYTES:
            break
    return _bounded(b"".join(pieces))


def _bounded(content: bytes) -> bytes:
    if len(content) >= _MOST_BYTES:
        raise ValueError("it is larger than 1 GiB")
    return content


_FORMATS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\x00": _lzma,
    b"]\x00\x00": _lzma,
    b"BZh": _bzip2,
    b"\x28\xb5\x2f\xfd": _zstd,
    _LZ4_LEGACY: _lz4,
}
