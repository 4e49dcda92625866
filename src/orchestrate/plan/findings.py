"""All that is wrong at once: what can be looked at separately is, and told together, the worst first."""

from collections.abc import Iterator
from contextlib import contextmanager

from blocksync.errors import BlocksyncError, ExitCode, Failed, Refused, Usage
from blocksync.hosts.host import HostLost

# What could not be found out comes first: nobody knows what else there is.
_WORST_FIRST = (ExitCode.FAILED, ExitCode.REFUSED, ExitCode.USAGE)


class Several(BlocksyncError):
    """Several errors about one thing, the worst first; the exit code is that one's."""

    def __init__(self, thing: object, errors: tuple[BlocksyncError, ...]) -> None:
        lines = (f"\n- {error.thing}: {error.cause}{_way_out(error)}" for error in errors)
        super().__init__(thing, f"{len(errors)} things are in the way{''.join(lines)}")
        self.errors = errors
        self.exit_code = errors[0].exit_code


class Findings:
    """Collects errors. A host that is gone is no finding: it ends everything."""

    def __init__(self) -> None:
        self._errors: list[BlocksyncError] = []

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._errors)

    def add(self, error: BlocksyncError) -> None:
        """Keep `error`; the same one twice is one."""
        if str(error) not in map(str, self._errors):
            self._errors.append(error)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the error that ends what is inside, and go on after it."""
        try:
            yield
        except HostLost:
            raise
        except Several as several:
            for error in several.errors:
                self.add(error)
        except (Failed, Refused, Usage) as error:
            self.add(error)

    def raise_any(self, thing: object) -> None:
        """Raise what was found: the one error itself, or `Several` about `thing`."""
        errors = sorted(self._errors, key=lambda error: _WORST_FIRST.index(error.exit_code))
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise Several(thing, tuple(errors))


def _way_out(error: BlocksyncError) -> str:
    return f"\n  hint: {error.way_out}" if error.way_out else ""
