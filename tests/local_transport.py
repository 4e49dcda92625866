"""This machine as if it were another: a child process instead of a connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blocksync.transports.child import ChildChannel


@dataclass(frozen=True, slots=True)
class Local:
    """Runs commands here, behind the words of `prefix` (`chroot DIR`, `ip netns exec NAME`), in `env`."""

    prefix: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None

    def run(self, argv: Sequence[str]) -> ChildChannel:
        return ChildChannel([*self.prefix, *argv], env=self.env)

    def close(self) -> None:
        return None

    def describe(self) -> str:
        return " ".join(self.prefix) or "this machine"
