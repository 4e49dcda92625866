"""What `ssh` says when it cannot connect, as a thing, a cause and a hint."""

import re
from dataclasses import dataclass

from blocksync.errors import Failed
from blocksync.foreign import shown
from blocksync.hosts.name import HostName


class HostUnreachable(Failed):
    """A host that cannot be connected to."""


class HostKeyUnknown(HostUnreachable):
    """Nothing vouches for the key that the host shows, or it has none that this side accepts."""


_LINES = 3
_CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class _Saying:
    """A message of OpenSSH's client, the cause it means and what to do; `{name}` is the host's name."""

    pattern: str
    cause: str
    way_out: str
    error: type[HostUnreachable] = HostUnreachable


# In the order in which they are looked for: the changed key also says that its verification failed.
_SAYINGS = (
    _Saying(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* does not match",
        "its host key is not the one in known_hosts: another machine answers, or it was installed anew",
        "compare `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on its console with what is offered; "
        "only when they agree: ssh-keygen -R {name}, then connect once with ssh",
    ),
    _Saying(
        r"REVOKED HOST KEY|host key .* revoked",
        "its host key is marked as revoked in known_hosts",
        "give the host a new key, or take the mark out if it is wrong",
    ),
    _Saying(
        r"Host key verification failed|host key is known for|authenticity of host",
        "its host key is not in known_hosts",
        "connect once with `ssh {name}` and compare the fingerprint with the host's console, "
        "or give it with --host-key-fingerprint SHA256:...",
        HostKeyUnknown,
    ),
    _Saying(
        r"Permission denied \(|Too many authentication failures"
        r"|Authentication failed|No authentication methods",
        "it does not let this user in",
        "see that `ssh {name} true` works without questions: ssh-add the key, ssh-copy-id it, or name the "
        "user (ssh://user@{name}/...)",
    ),
    _Saying(
        r"Could not resolve hostname|Name or service not known",
        "no such host name",
        "correct the name, or give it a HostName in ~/.ssh/config",
    ),
    _Saying(
        r"Connection refused",
        "nothing listens there",
        "start sshd on the host, or give its port (ssh://{name}:port/...)",
    ),
    _Saying(
        r"timed out|Timeout, server",
        "no answer in time",
        "see that the host is up, and that no firewall is between here and its sshd",
    ),
    _Saying(
        r"No route to host|Network is unreachable",
        "no way there on the network",
        "see that the host is up and that this machine has a route to it",
    ),
    _Saying(
        r"no matching host key type found|no acceptable host key",
        "it has no host key of a kind that this ssh accepts; an old host has only old ones",
        "allow what it offers for this host in ~/.ssh/config, such as HostKeyAlgorithms +ssh-rsa",
        HostKeyUnknown,
    ),
    _Saying(
        r"no matching .* found|no acceptable",
        "this ssh and the host's sshd share no algorithm; an old host offers only old ones",
        "allow what it offers for this host in ~/.ssh/config, such as KexAlgorithms "
        "+diffie-hellman-group14-sha1",
    ),
)
# Of a connection that others share: once it is gone, a client tries one of its own, which is kept from it.
_OF_THE_LINK = re.compile(
    r"mux_client_\w+: (?!.*refused by peer)|kex_exchange_identification: |client_loop: "
    r"|Connection (to .* )?(closed|reset)|Shared connection |Timeout, server "
)
_ANYTHING_ELSE = _Saying("", "ssh cannot connect", "see that `ssh {name} true` works")


def unreachable(host: HostName, said: str) -> HostUnreachable:
    """The error for a host that `ssh` gave up on, out of what it `said` on standard error."""
    saying = next((s for s in _SAYINGS if re.search(s.pattern, said)), _ANYTHING_ELSE)
    words = last_words(said)
    cause = f"{saying.cause} ({words})" if words else saying.cause
    return saying.error(f"ssh {host}", cause, saying.way_out.format(name=host.name))


def not_the_fingerprint(host: HostName, fingerprint: str) -> HostUnreachable:
    """The error for a host that has no key of the fingerprint that was given."""
    way_out = "compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host's console"
    return HostKeyUnknown(f"ssh {host}", f"it shows no host key with the fingerprint {fingerprint}", way_out)


def tells_of_the_link_alone(said: str) -> bool:
    """Whether a command's client `said` nothing on standard error but that its connection is gone."""
    return all(_OF_THE_LINK.match(line) for line in said.splitlines() if line.strip())


def last_words(said: str) -> str:
    """The last lines as one, bounded, without a character that a terminal would obey."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" \t\r@")]
    return shown("; ".join(lines[-_LINES:])[-_CHARACTERS:], _CHARACTERS)
