"""One line for the login shell of another host, made of an argv; and the line that puts a file there."""

import secrets
import shlex
from collections.abc import Sequence

from blocksync.errors import Usage

# A shell's line, a log line or an ssh request ends at these; no quoting survives every one of them.
_NEVER = {"\0": "NUL", "\r": "a carriage return", "\n": "a newline"}

# `set -C` opens the temporary file exclusively, so that no link planted there is followed. The length is
# checked because a link that dies looks like the end of the content.
_PUT = (
    'set -C; umask 077; t="$1.$2"; '
    'if [ -d "$1" ]; then echo "$1 is a folder" >&2; exit 1; fi; '
    'exec 3> "$t" || exit 1; trap \'rm -f -- "$t"\' EXIT; trap "exit 1" HUP INT TERM; '
    'cat >&3 && n=$(wc -c < "$t") || exit 1; '
    'if [ "$n" -ne "$3" ]; then echo "only $n of $3 bytes came" >&2; exit 1; fi; '
    'chmod "$4" "$t" && mv -f -- "$t" "$1"'
)


def quoted(argv: Sequence[str]) -> str:
    """`argv` as one line that a POSIX shell reads back as the same words.

    Raises Usage when it is empty or a word holds NUL, CR or LF.
    """
    if not argv:
        raise Usage("remote command", "no words in it", "name the program to run")
    for word in argv:
        check_text(word)
    return shlex.join(argv)


def put(path: str, mode: int, length: int) -> list[str]:
    """The argv that makes `path` from `length` bytes on its standard input, whole or not at all."""
    check_text(path)
    if not path:
        raise Usage("remote path", "empty", "name the file to put")
    # No command there may take it for an option.
    path = path if path.startswith("/") else f"./{path}"
    return ["sh", "-c", _PUT, "put", path, secrets.token_hex(8), str(length), f"{mode:04o}"]


def check_text(text: str) -> None:
    """Raises Usage when `text` holds NUL, CR or LF, or cannot be encoded."""
    for character, name in _NEVER.items():
        if character in text:
            raise Usage(repr(text), f"has {name} in it", "no name or argument sent to a host may hold that")
