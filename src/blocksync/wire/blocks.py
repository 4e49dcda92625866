"""Sets of blocks as bitmaps: bit i of byte i//8 is block i."""


def mark(bits: bytearray, first: int, count: int) -> None:
    """Set the bits of `count` blocks from `first` on."""
    block, end = first, first + count
    while block < end:
        if block % 8 == 0 and end - block >= 8:
            whole = (end - block) // 8
            bits[block // 8 : block // 8 + whole] = b"\xff" * whole
            block += whole * 8
        else:
            bits[block // 8] |= 1 << block % 8
            block += 1


def any_marked(bits: bytearray, first: int, count: int) -> bool:
    """Whether one of `count` blocks from `first` on is set."""
    start, end = first // 8, -(-(first + count) // 8)
    window = int.from_bytes(bits[start:end], "little") >> first % 8
    return window & ((1 << count) - 1) != 0
