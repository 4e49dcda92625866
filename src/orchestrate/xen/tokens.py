"""Tokens of xm and xl configuration text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from orchestrate.xen.values import TextPosition


class TokenKind(Enum):
    """Kinds of token. `END` closes a statement: a line's end, `;`, or the end of the text."""

    NAME = "a name"
    NUMBER = "a number"
    TEXT = "text"
    SIGN = "a sign"
    END = "the end of the statement"


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its `text` as written (without joins and comments) and where it starts."""

    kind: TokenKind
    text: str
    place: TextPosition


_PATTERN = re.compile(
    r"""
      (?P<skip>    [ \t\f\v]+ | \\\n | \#[^\n]* )
    | (?P<end>     \n | ; )
    | (?P<text>    '''(?:[^\\]|\\.)*?''' | \"\"\"(?:[^\\]|\\.)*?\"\"\"
                 | '[^'\\\n]*(?:\\.[^'\\\n]*)*' | "[^"\\\n]*(?:\\.[^"\\\n]*)*" )
    | (?P<number>  [0-9][A-Za-z0-9_.]* )
    | (?P<name>    [A-Za-z_][A-Za-z0-9_.]* )
    | (?P<sign>    \+= | [-+*/%&|^<>=!]= | \*\* | // | [][(){},=+%*/<>&|^~!:@`.-] )
    """,
    re.VERBOSE | re.DOTALL,
)
_KINDS = {
    "end": TokenKind.END,
    "text": TokenKind.TEXT,
    "number": TokenKind.NUMBER,
    "name": TokenKind.NAME,
    "sign": TokenKind.SIGN,
}


def tokens(text: str, source: str) -> Iterator[Token]:
    """Cut `text` (line ends are newlines) into tokens; the last one is an `END`.

    Raises `Usage` with the place of a string that is never closed or a character no notation knows.
    """
    line, line_start, at = 1, 0, 0
    while at < len(text):
        place = TextPosition(source, line, at - line_start + 1)
        match = _PATTERN.match(text, at)
        if match is None:
            raise place.wrong(_unreadable(text[at]))
        piece, group = match.group(), match.lastgroup
        if group is not None and group != "skip":
            yield Token(_KINDS[group], piece, place)
        at = match.end()
        if "\n" in piece:
            line += piece.count("\n")
            line_start = match.start() + piece.rindex("\n") + 1
    yield Token(TokenKind.END, "", TextPosition(source, line, at - line_start + 1))


def _unreadable(character: str) -> str:
    if character in "'\"":
        return "a string starts here and is never closed"
    if character == "\\":
        return "a backslash joins lines only as the last character of a line"
    return f"unexpected character {character!r}"


_ESCAPE = re.compile(r"\\(\n|[0-7]{1,3}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "\n": "",
}


def unquote(quoted: str) -> str:
    """The text between the quotes, escapes resolved as xl and Python do; unknown escapes stay as they are."""
    width = 3 if len(quoted) >= 6 and quoted[:3] in ("'''", '"""') else 1
    return _ESCAPE.sub(_resolve, quoted[width:-width])


def _resolve(escape: re.Match[str]) -> str:
    code = escape.group(1)
    if code in _ESCAPED:
        return _ESCAPED[code]
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF)
    if code[0] == "x" and len(code) == 3:
        return chr(int(code[1:], 16))
    return escape.group()
