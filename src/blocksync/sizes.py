"""Sizes as people write them: `64KiB`, `4M`, `4194304`; and as programs print them."""

import re

from blocksync.errors import Usage

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_AS_WRITTEN = re.IGNORECASE | re.ASCII
_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def parse_size(text: str) -> int:
    """Bytes meant by `text`: a number with an optional unit. K, KiB, M, MiB … are powers of 1024, KB, MB … of
    1000.

    Raises Usage when it is no such size, or no whole number of bytes.
    """
    match = re.fullmatch(r"\s*(\d{1,30})(?:\.(\d{1,30}))?\s*([KMGTP]?)(i?B?)\s*", text, _AS_WRITTEN)
    if match is None:
        raise Usage(text, "is no size", "write bytes, or a number with KiB, MiB, GiB or TiB")
    whole, fraction, prefix, suffix = match.groups(default="")
    unit = (prefix + suffix).upper()
    factor = _DECIMAL[unit] if unit in _DECIMAL else _UNITS[prefix.upper()]
    scaled = int(whole + fraction) * factor
    if scaled % 10 ** len(fraction):
        raise Usage(text, "is no whole number of bytes", "write it in a smaller unit")
    return int(scaled // 10 ** len(fraction))


def counted(text: str) -> int | None:
    """The count that a program printed: plain decimal digits, of 64 bits at most. None for anything else."""
    digits = re.fullmatch(r"[0-9]{1,20}", text)
    return None if digits is None or int(text) >= 2**64 else int(text)


def format_size(count: float) -> str:
    """`count` bytes in the largest binary unit that leaves at least one: `1.5 GiB`, `512 B`."""
    for name in _NAMES:
        if abs(count) < 1024 or name == _NAMES[-1]:
            break
        count /= 1024
    return f"{count:.0f} B" if name == "B" else f"{count:.4g} {name}"
