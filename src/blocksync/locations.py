"""Where a device is: `/dev/vg0/root` here, `ssh://[user@]host[:port]/dev/vg0/root` on another host, or
`[user@]host:/dev/vg0/root` as scp has it.

In the path of a URL, %XX stands for a byte (RFC 3986, 2.1); scp's form takes every character as it is. A path
with a colon before its first slash is never one of this machine: it is written ./NAME.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from blocksync.errors import Usage
from blocksync.hosts.name import HostName

SCHEME = "ssh"
UNSAFE = "\0\r\n"
WAY_OUT = "write ssh://[user@]host[:port]/path, [user@]host:/path, or a path on this machine"


@dataclass(frozen=True, slots=True)
class Location:
    """A path on a host; `host` None is this machine."""

    path: Path
    host: HostName | None = None

    def __str__(self) -> str:
        return (
            str(self.path) if self.host is None else f"{SCHEME}://{self.host}{quote(os.fsencode(self.path))}"
        )


def is_far(text: str) -> bool:
    """Whether what a person wrote can be on another host only."""
    return ":" in text.partition("/")[0]


def parse(text: str) -> Location:
    """The location that a person wrote. Raises Usage."""
    if any(character in text for character in UNSAFE):
        raise Usage(repr(text), "has a NUL or a line's end in it", WAY_OUT)
    if text in ("", "-"):
        raise Usage(f"`{text}`", "names no device or file", WAY_OUT)
    if not is_far(text):
        return Location(Path(text))
    if not text.startswith(f"{SCHEME}://"):
        return _as_scp_has_it(text)
    # No URL's query or fragment: '?' and '#' may be in a path.
    authority, slash, path = text.removeprefix(f"{SCHEME}://").partition("/")
    if not path:
        raise Usage(text, "names no path on the host", WAY_OUT)
    path = unquote(path, errors="surrogateescape")
    if any(character in path for character in UNSAFE):
        raise Usage(repr(text), "has a NUL or a line's end in it", WAY_OUT)
    return Location(Path(slash + path), _host(text, authority))


def _as_scp_has_it(text: str) -> Location:
    place, colon, path = text.partition(":/")
    if place == SCHEME:
        raise Usage(text, "is no location: a URL has two slashes", WAY_OUT)
    # `[::1]:/x` has a colon and a slash behind its bracket; `a:b:/x` is nothing that scp takes for a host.
    if not colon or (":" in place and not place.endswith("]")):
        raise Usage(
            text,
            "has a colon before its first slash, as a path on another host has",
            f"{WAY_OUT}; a file here with such a name is ./{text}",
        )
    user, at, name = place.rpartition("@")
    if name.startswith("["):
        name, _ = _name_and_port(text, name)
    return Location(Path("/" + path), HostName(user if at else None, name, None))


def _host(text: str, authority: str) -> HostName:
    user, at, place = authority.rpartition("@")
    name, port = _name_and_port(text, place)
    return HostName(user if at else None, name, port)


def _name_and_port(text: str, place: str) -> tuple[str, int | None]:
    if place.startswith("["):
        name, closed, rest = place[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise Usage(text, "has no address between its brackets", WAY_OUT)
        colon, port = rest[:1], rest[1:]
    else:
        name, colon, port = place.partition(":")
    if colon and not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise Usage(text, f"has {port!r} for a port", WAY_OUT)
    return name, int(port) if colon else None


def host_named(text: str) -> HostName:
    """The host of [user@]host[:port]. Raises `Usage`."""
    host = parse(f"ssh://{text}/-").host
    if host is None:
        raise Usage(text, "is not a host", "give [user@]host[:port]")
    return host
