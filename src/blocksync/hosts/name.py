"""The name of a host as a user gives it, checked before any program sees it."""

from dataclasses import dataclass

from blocksync.errors import Usage

# OpenSSH substitutes the names into ProxyCommand and Match exec, which a shell runs, and refuses these
# characters itself only from 9.6 on (CVE-2023-51385). '/' and '@' would make it read the name as a URL or as
# user@host.
_SHELL = frozenset("'`\"$\\;&<>|(){}")
_NOT_IN_NAME = _SHELL | frozenset("/@,!*?#")
_NOT_IN_USER = _SHELL | frozenset("/:#")


@dataclass(frozen=True, slots=True)
class HostName:
    """A host: its name, address or alias in ~/.ssh/config, and the user and port when they were given.

    Raises Usage for a name or user that a program could take for an option, a command or a URL.
    """

    user: str | None
    name: str
    port: int | None = None

    def __post_init__(self) -> None:
        _check("host name", self.name, _NOT_IN_NAME)
        if self.user is not None:
            _check("user name", self.user, _NOT_IN_USER)
        if self.port is not None and not 1 <= self.port <= 65535:
            raise Usage(f"port {self.port}", "not between 1 and 65535", "give the port of the host's sshd")

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{user}{name}" + ("" if self.port is None else f":{self.port}")


def _check(what: str, text: str, forbidden: frozenset[str]) -> None:
    way_out = "give a plain name or address: ssh://user@host:port/path"
    if not text:
        raise Usage(what, "empty", way_out)
    if text.startswith("-"):
        raise Usage(f"{what} {text!r}", "starts with '-', as an option does", way_out)
    wrong = next((c for c in text if c in forbidden or c.isspace() or not c.isprintable()), None)
    if wrong is not None:
        raise Usage(f"{what} {text!r}", f"has {wrong!r} in it", way_out)
