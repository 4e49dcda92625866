"""Values of a Xen configuration, each with the place it was written at.

Three notations (xm/xl text, `xl list -l` JSON, `xm list -l` s-expressions) are read into the same
`Settings`, so that what a setting means is decided once, in `orchestrate.xen.guest`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from blocksync.errors import Usage
from blocksync.foreign import shown

HAND_IN = (
    "correct the file, or hand in what Xen itself made of it: "
    "xl list -l NAME > NAME.json (with xend: xm list -l NAME > NAME.sxp)"
)

# Brackets and parentheses may nest this deep; real configurations need two levels (vnuma).
MAX_DEPTH = 32

_MOST_SHOWN = 80

_KINDS = {str: "text", bool: "a truth value", int: "a number", float: "a fraction", tuple: "a list"}

# Leading zeros are left out on purpose: xl reads '0512' as octal, xm as decimal.
_WHOLE_NUMBER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,15}|0|[1-9][0-9]{0,17})")
_FLAGS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}


@dataclass(frozen=True, slots=True)
class TextPosition:
    """Where something is written: `source` as given, `line` and `column` from 1."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"

    def wrong(self, cause: str, way_out: str = HAND_IN) -> Usage:
        """The error to raise for what stands here."""
        return Usage(self, cause, way_out)


Data = str | int | float | bool | None | tuple["Value", ...] | Mapping[str, "Value"]


@dataclass(frozen=True, slots=True)
class Value:
    """One value and its place. The readings below raise `Usage` about the place when it is another kind."""

    data: Data
    place: TextPosition

    @property
    def kind(self) -> str:
        """What the value is, for messages."""
        if self.data is None:
            return "nothing"
        return _KINDS.get(type(self.data), "a group of settings")

    def text(self) -> str:
        """Text without the white space around it; a number is taken as its digits."""
        if isinstance(self.data, str):
            return self.data.strip()
        if isinstance(self.data, int) and not isinstance(self.data, bool):
            return str(self.data)
        raise self.place.wrong(f"text was expected, this is {self.kind}")

    def number(self) -> int:
        """A whole number, also when it is written as text (xen-tools writes `memory = '512'`)."""
        if isinstance(self.data, int) and not isinstance(self.data, bool):
            return self.data
        if isinstance(self.data, str) and _WHOLE_NUMBER.fullmatch(self.data.strip()):
            return int(self.data, 0)
        found = f"'{self.data[:40]}'" if isinstance(self.data, str) else self.kind
        raise self.place.wrong(f"a whole number was expected, this is {found}")

    def flag(self) -> bool:
        """Truth: True and False, numbers, and the words xm and libxl print for them."""
        if isinstance(self.data, bool | int):
            return bool(self.data)
        if isinstance(self.data, str) and self.data.strip().lower() in _FLAGS:
            return _FLAGS[self.data.strip().lower()]
        raise self.place.wrong(f"0 or 1 was expected, this is {self.kind}")

    def items(self) -> tuple["Value", ...]:
        """The items of a list."""
        if isinstance(self.data, tuple):
            return self.data
        raise self.place.wrong(f"a list was expected, this is {self.kind}", "write it in brackets: [ '...' ]")

    def shown(self) -> str:
        """The value in one line for a message, cut where it is long."""
        return shown(self._written(", "), _MOST_SHOWN)

    def _written(self, between: str) -> str:
        if isinstance(self.data, tuple):
            return between.join(item._written(" ") for item in self.data)
        if isinstance(self.data, Mapping):
            return between.join(f"{name}={item._written(' ')}" for name, item in self.data.items())
        return str(self.data)

    def fields(self) -> Mapping[str, "Value"]:
        """The named values of a group (a JSON object, a device of an s-expression)."""
        if isinstance(self.data, Mapping):
            return self.data
        raise self.place.wrong(f"a group of settings was expected, this is {self.kind}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration sets: `values` by name (the last assignment wins), in the names of xl.cfg(5).

    `used` are names whose value other settings took over: a configuration's own variables.
    """

    source: str
    values: Mapping[str, Value]
    warnings: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def get(self, name: str) -> Value | None:
        """The value of `name`, or None when it is not set or set to Python's None."""
        value = self.values.get(name)
        return None if value is None or value.data is None else value

    def text(self, name: str) -> str | None:
        """The text of `name`, or None when it is not set or empty."""
        value = self.get(name)
        return (value.text() or None) if value else None

    def number(self, name: str) -> int | None:
        """The whole number `name`, or None when it is not set."""
        value = self.get(name)
        return value.number() if value else None

    def flag(self, name: str) -> bool:
        """Whether `name` is set and true."""
        value = self.get(name)
        return value.flag() if value else False

    def items(self, name: str) -> tuple[Value, ...]:
        """The items of the list `name`, () when it is not set."""
        value = self.get(name)
        return value.items() if value else ()
