"""One line for the login shell of another host, made of an argv."""

import shlex
from collections.abc import Sequence

from blocksync.errors import Usage

# A shell's line, a log line or an ssh request ends at these; no quoting survives every one of them.
_NEVER = {"\0": "NUL", "\r": "a carriage return", "\n": "a newline"}


def quoted(argv: Sequence[str]) -> str:
    """`argv` as one line that a POSIX shell reads back as the same words.

    Raises Usage when it is empty or a word holds NUL, CR or LF.
    """
    if not argv:
        raise Usage("remote command", "no words in it", "name the program to run")
    for word in argv:
        check_text(word)
    return shlex.join(argv)


def check_text(text: str) -> None:
    """Raises Usage when `text` holds NUL, CR or LF, or cannot be encoded."""
    for character, name in _NEVER.items():
        if character in text:
            raise Usage(repr(text), f"has {name} in it", "no name or argument sent to a host may hold that")
