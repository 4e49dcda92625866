"""What waits on a far host for its next use: a slow host takes seconds to start it anew."""

from typing import Generic, Protocol, TypeVar


class Waits(Protocol):
    """Something that was started there."""

    @property
    def stands(self) -> bool:
        """Whether it still waits, as far as is known here."""

    def close(self) -> None:
        """End it."""


One = TypeVar("One", bound=Waits)


class Standby(Generic[One]):
    """All that waits; several threads may give and take."""

    def __init__(self) -> None:
        self._waiting: list[One] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def give(self, one: One) -> None:
        """Let it wait."""
        self._waiting.append(one)

    def take(self) -> One | None:
        """One that still stands, None when there is none; what has ended meanwhile is closed."""
        while (one := self._next()) is not None and not one.stands:
            one.close()
        return one

    def close(self) -> None:
        """End all that waits. May be called again."""
        while (one := self._next()) is not None:
            one.close()

    def _next(self) -> One | None:
        # Asked and taken at once: another thread may take the last one.
        try:
            return self._waiting.pop()
        except IndexError:
            return None
