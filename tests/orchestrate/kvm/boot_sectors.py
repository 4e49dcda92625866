"""Boot sectors for tests: a guest of a few bytes that is ready in a fraction of a second."""

_ORIGIN = 0x7C00
_PRINT = bytes.fromhex(
    "fa 31c0 8ed8 fc"  # cli (keeps the BIOS off the port); xor ax,ax; mov ds,ax; cld
    "be 0000"  # mov si,MESSAGE (filled in)
    "ba f803"  # mov dx,COM1
    "ac 84c0 7403 ee ebf8"  # next: lodsb; test al,al; jz done; out dx,al; jmp next
)
_ECHO = bytes.fromhex(
    "ba fd03"  # poll: mov dx,COM1 line status
    "ec a801 74fb"  # wait: in al,dx; test al,1; jz wait
    "ba f803 ec ee"  # mov dx,COM1; in al,dx; out dx,al
    "ebf1"  # jmp poll
)
_RESET = bytes.fromhex("b0fe e664 f4 ebfd")  # mov al,0xfe; out 0x64,al (reset line); hlt
_MESSAGE_OPERAND = 7


def printing(text: str, *, then_reset: bool = False) -> bytes:
    """A 512-byte sector that prints `text` on COM1, then echoes what it receives, or resets the machine."""
    code = bytearray(_PRINT + (_RESET if then_reset else _ECHO))
    code[_MESSAGE_OPERAND : _MESSAGE_OPERAND + 2] = (_ORIGIN + len(code)).to_bytes(2, "little")
    return bytes(code + text.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"
