"""How changes lie on a device: what share of its blocks they touch, for any block size."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from blocksync.errors import Usage
from blocksync.sizes import format_size, parse_size
from blocksync.tuning.rates import PAGE


@dataclass(frozen=True, slots=True)
class Pattern:
    """`share` (0 to 1) of a device's bytes changed; `touched(block_size)` is the share of its blocks that
    did.
    """

    name: str
    share: float
    touched: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class PatternPart:
    """A share (0 to 1) of a device's bytes, in runs of `run` bytes that start at random 4 KiB pages."""

    share: float
    run: int

    def __str__(self) -> str:
        return f"{self.share * 100:g}%:{format_size(self.run).replace(' ', '')}"

    def meetings(self, block: int) -> float:
        """How many runs a block of `block` bytes (4 KiB and more) meets on average."""
        # A run meets (block + run - PAGE) / block blocks, and there are share / run of them a byte.
        return self.share / self.run * (block + self.run - PAGE)


def stated(text: str) -> Pattern:
    """The pattern that a person states: `1%:4KiB`, or several parts joined by `+`. Raises Usage."""
    parts = [_part(piece, text) for piece in text.split("+")]
    share = sum(part.share for part in parts)
    if share > 1:
        raise Usage(f"--dirty {text}", "is more than the whole device", "state shares of 100% together")

    def touched(block: int) -> float:
        # Runs at random places: a block is met by none with a chance of e to the minus its average.
        return 1 - math.exp(-sum(part.meetings(block) for part in parts))

    return Pattern("+".join(map(str, parts)), share, touched)


def _part(piece: str, text: str) -> PatternPart:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)%:(.+)", piece)
    if match is None:
        raise Usage(
            f"--dirty {text}", "is no pattern", "write SHARE%:RUN, as 1%:4KiB or 0.5%:4KiB+0.5%:256KiB"
        )
    share, run = float(match[1]) / 100, parse_size(match[2])
    if share == 0 or run < PAGE:
        raise Usage(f"--dirty {text}", "has an empty share, or runs below 4KiB", "state larger ones")
    return PatternPart(share, run)


def seen(bits: bytes | bytearray, size: int, name: str) -> Pattern:
    """The pattern of a device of `size` bytes whose 4 KiB pages changed where bits are set (bit i of byte
    i//8 is page i).
    """
    import numpy as np  # noqa: PLC0415

    pages = -(-size // PAGE)
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), count=pages, bitorder="little")

    def touched(block: int) -> float:
        return float(np.maximum.reduceat(flags, np.arange(0, pages, block // PAGE)).mean())

    return Pattern(name, float(flags.mean()), touched)
