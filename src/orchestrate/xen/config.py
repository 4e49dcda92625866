"""Reader of xm and xl guest configurations.

`xm` runs a configuration as Python, `xl` reads it with a small grammar of its own (xl.cfg(5)). Real files mix
both, so this reads a superset and executes nothing:

    statement   NAME = expression | NAME += expression      ends at a line's end or `;`
    expression  product { + product }                       text, lists and whole numbers
    product     atom { % atom | % (expression, ...) }       text with %s %d %i %u %x %X %o %%
    atom        'text' | "text" | number | True | False | None | NAME set before | list | (expression)
    list        [ expression, ... ]                         a comma may end it; lines do not matter inside

Numbers are read as strtol does with base 0 (0x1f, 017, 15). Comments start with #, a backslash at the end
of a line joins it to the next.
"""

import keyword
import re
from collections.abc import Iterator

from blocksync.errors import Usage
from orchestrate.xen.tokens import Token, TokenKind, tokens, unquote
from orchestrate.xen.values import MAX_DEPTH, Data, Settings, TextPosition, Value

# What + and % may build in all, in characters and list items: `a = a + a` doubles with every line.
MAX_BUILT = 1 << 20

_PYTHON_WORDS = frozenset(keyword.kwlist) | {"exec", "print"}
_CONSTANTS = {"True": True, "False": False, "None": None}
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,15}|0[0-7]{0,20}|[1-9][0-9]{0,17}")
_CONVERSION = re.compile(r"%(?P<flags>[-+ #0]*)(?P<width>[0-9]{0,2})(?P<type>.?)", re.DOTALL)
_CONVERSIONS = frozenset("sdiuxXo")
_OUR_SIGNS = frozenset(["[", "]", ")", ",", "=", "+=", "+", "%"])


def parse(text: str, name: str) -> Settings:
    """Read configuration `text`; `name` (a file's path) opens every message.

    Raises `Usage` about `name:line:column` for anything outside the grammar above.
    """
    warnings = []
    if "\r" in text:
        warnings.append(f"{name}: line ends are CRLF (xl refuses such a file); read as plain line ends")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    parser = _Parser(tokens(text, name))
    parser.statements()
    return Settings(name, parser.values, (*warnings, *parser.warnings), frozenset(parser.used))


class _Parser:
    """Recursive descent with one token of foresight; holds the names set so far."""

    def __init__(self, source: Iterator[Token]) -> None:
        self._source = source
        self._coming = next(source)
        self._open: list[Token] = []
        self._built = 0
        self._used: set[str] = set()  # names that the statement at hand reads
        self.used: set[str] = set()  # names that any statement reads
        self.values: dict[str, Value] = {}
        self.warnings: list[str] = []

    # Statements

    def statements(self) -> None:
        while not self._at_end_of_text():
            if self._coming.kind is TokenKind.END:
                self._next()
            else:
                self._statement()

    def _statement(self) -> None:
        self._used.clear()
        name = self._next()
        if name.kind is TokenKind.SIGN and name.text not in _OUR_SIGNS:
            raise _python(name.place, f"`{name.text}`")
        if name.kind is not TokenKind.NAME:
            raise name.place.wrong(f"a setting (NAME = value) was expected, found {_shown(name)}")
        if name.text in _PYTHON_WORDS:
            raise _python(name.place, f"`{name.text}`")
        sign = self._next()
        if sign.kind is not TokenKind.SIGN or sign.text not in ("=", "+="):
            raise _not_a_setting(name, sign)
        value = self._expression()
        if self._coming.kind is not TokenKind.END:
            raise _unexpected(self._coming)
        self._assign(name, sign.text, value)

    def _assign(self, name: Token, sign: str, value: Value) -> None:
        before = self.values.get(name.text)
        if sign == "+=" and before is not None:
            value = self._sum(before, value, name.place)
        elif before is not None and name.text not in self._used:
            self.warnings.append(
                f"{name.place}: `{name.text}` was set before in line {before.place.line}; the last one counts"
            )
        self.values[name.text] = value

    # Expressions

    def _expression(self) -> Value:
        value = self._product()
        while self._comes("+"):
            sign = self._next()
            value = self._sum(value, self._product(), sign.place)
        return value

    def _product(self) -> Value:
        value = self._atom()
        while self._comes("%"):
            sign = self._next()
            arguments = self._enclosed(")") if self._comes("(") else (self._atom(),)
            value = self._formatted(value, arguments, sign.place)
        return value

    def _atom(self) -> Value:
        if self._comes("["):
            return Value(place=self._coming.place, data=self._enclosed("]"))
        if self._comes("("):
            return self._group()
        token = self._next()
        if token.kind is TokenKind.TEXT:
            return self._text(token)
        if token.kind is TokenKind.NUMBER:
            return Value(_whole(token), token.place)
        if token.kind is TokenKind.NAME:
            return self._named(token)
        if token.kind is TokenKind.SIGN and token.text == "-" and self._coming.kind is TokenKind.NUMBER:
            return Value(-_whole(self._next()), token.place)
        raise _unexpected(token)

    def _text(self, token: Token) -> Value:
        following = self._coming
        if following.kind is TokenKind.TEXT:
            raise following.place.wrong(
                "two strings stand side by side: the comma between them is missing (Python would join them)",
                "put a comma between them, or + to join them",
            )
        if self._comes(".") or self._comes("["):
            raise _python(following.place, "a method or an index of text")
        return Value(unquote(token.text), token.place)

    def _named(self, token: Token) -> Value:
        if token.text in _CONSTANTS:
            return Value(_CONSTANTS[token.text], token.place)
        if token.text in _PYTHON_WORDS:
            raise _python(token.place, f"`{token.text}`")
        if self._comes("(") or self._comes("["):
            raise _python(token.place, f"`{token.text}{self._coming.text}` (a call or an index)")
        if self._open and self._comes("="):
            raise self._never_closed()
        if self._coming.kind is TokenKind.NAME and self._coming.text in _PYTHON_WORDS:
            raise _python(self._coming.place, f"`{self._coming.text}`")
        known = self.values.get(token.text)
        if known is not None:
            self._used.add(token.text)
            self.used.add(token.text)
            return Value(known.data, token.place)
        if "." in token.text:
            raise _python(token.place, f"the attribute `{token.text}`")
        raise token.place.wrong(
            f"the name `{token.text}` is not set before this line",
            f"set it at the top of the file ({token.text} = ...): what was given to xm on its command line "
            f"(xm create FILE {token.text}=...) is not in the file",
        )

    def _group(self) -> Value:
        opening = self._coming
        inside = self._enclosed(")")
        if len(inside) != 1:
            raise opening.place.wrong(
                "a tuple stands where a value or a list belongs", "write it in brackets: [ ]"
            )
        return inside[0]

    def _enclosed(self, closing: str) -> tuple[Value, ...]:
        """The expressions between the bracket that comes next and `closing`."""
        if len(self._open) == MAX_DEPTH:
            raise self._coming.place.wrong(f"brackets nest more than {MAX_DEPTH} deep")
        self._open.append(self._coming)
        self._next()
        found: list[Value] = []
        while not self._comes(closing):
            found.append(self._item(closing))
        self._open.pop()
        self._next()
        return tuple(found)

    def _item(self, closing: str) -> Value:
        if self._at_end_of_text():
            raise self._never_closed()
        first = self._coming
        value = self._expression()
        # Only lists written in place: through names, nesting could grow beyond every bound.
        if isinstance(value.data, tuple) and first.text != "[":
            raise first.place.wrong("a list within a list has to be written in place")
        if self._comes(","):
            self._next()
        elif self._at_end_of_text() or self._comes_a_setting():
            raise self._never_closed()
        elif not self._comes(closing):
            raise _unexpected(self._coming)
        return value

    # Operators

    def _sum(self, left: Value, right: Value, place: TextPosition) -> Value:
        data = _joined(left.data, right.data)
        if data is None:
            raise place.wrong(f"{left.kind} and {right.kind} cannot be added")
        self._count(data.bit_length() if isinstance(data, int) else len(data), place)
        return Value(data, left.place)

    def _formatted(self, template: Value, arguments: tuple[Value, ...], place: TextPosition) -> Value:
        if not isinstance(template.data, str):
            raise _python(place, "arithmetic (`%`)")
        remaining = list(reversed(arguments))
        self._count(len(template.data), place)

        def converted(found: re.Match[str]) -> str:
            piece = _converted(found, remaining, place)
            self._count(len(piece), place)
            return piece

        built = _CONVERSION.sub(converted, template.data)
        if remaining:
            raise remaining[-1].place.wrong("the text before `%` has no place for this value")
        return Value(built, template.place)

    def _count(self, size: int, place: TextPosition) -> None:
        self._built += size
        if self._built > MAX_BUILT:
            raise place.wrong(f"the expressions of this file build more than {MAX_BUILT} characters")

    # Tokens

    def _next(self) -> Token:
        """Take the token that comes. Inside brackets line ends do not count."""
        token = self._coming
        self._coming = next(self._source, token)
        while self._open and self._coming.kind is TokenKind.END and self._coming.text == "\n":
            self._coming = next(self._source)
        return token

    def _comes(self, sign: str) -> bool:
        return self._coming.kind is TokenKind.SIGN and self._coming.text == sign

    def _at_end_of_text(self) -> bool:
        return self._coming.kind is TokenKind.END and self._coming.text == ""

    def _comes_a_setting(self) -> bool:
        return self._coming.kind is TokenKind.NAME and self._coming.text not in _PYTHON_WORDS

    def _never_closed(self) -> Usage:
        opening = self._open[-1]
        return opening.place.wrong(f"`{opening.text}` is never closed")


def _python(place: TextPosition, construct: str) -> Usage:
    return place.wrong(f"{construct} is Python code: configurations are read, never run")


def _not_a_setting(name: Token, sign: Token) -> Usage:
    if sign.kind is TokenKind.SIGN:
        return _python(name.place, f"`{name.text}{sign.text}`")
    return sign.place.wrong(f"`=` was expected after `{name.text[:40]}`, found {_shown(sign)}")


def _unexpected(token: Token) -> Usage:
    python = token.kind is TokenKind.SIGN and token.text not in _OUR_SIGNS
    if python or (token.kind is TokenKind.NAME and token.text in _PYTHON_WORDS):
        return _python(token.place, f"`{token.text}`")
    return token.place.wrong(f"a value or the end of the statement was expected, found {_shown(token)}")


def _shown(token: Token) -> str:
    if token.kind is TokenKind.END:
        return "the end of the text" if token.text == "" else "the end of the statement"
    return f"`{token.text[:40]}`"


def _whole(token: Token) -> int:
    if not _NUMBER.fullmatch(token.text):
        raise token.place.wrong(
            f"`{token.text[:40]}` is not a whole number", "quote it if it is meant as text"
        )
    octal = token.text[0] == "0" and token.text.isdigit()
    return int(token.text, 8 if octal else 0)


def _joined(left: Data, right: Data) -> str | int | tuple[Value, ...] | None:
    """What `left + right` is in Python, None for kinds that do not add."""
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    if isinstance(left, tuple) and isinstance(right, tuple):
        return left + right
    if type(left) is int and type(right) is int:
        return left + right
    return None


def _converted(found: re.Match[str], remaining: list[Value], place: TextPosition) -> str:
    """One conversion of a template; takes its value off the end of `remaining`."""
    kind = found["type"]
    if kind == "%":
        return "%"
    if kind not in _CONVERSIONS:
        raise place.wrong(f"the conversion `{found.group()}` is not read; %s, %d, %i, %u, %x, %X and %o are")
    if not remaining:
        raise place.wrong(f"no value is left for `{found.group()}`")
    value = remaining.pop()
    if isinstance(value.data, tuple) or (kind != "s" and not isinstance(value.data, int)):
        raise value.place.wrong(f"{value.kind} does not fit `{found.group()}`")
    return f"%{found['flags']}{found['width']}{kind}" % value.data
