"""Which way to a host is taken."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from blocksync.errors import Usage
from blocksync.hosts import programs
from blocksync.hosts.name import HostName
from blocksync.transports.host_keys import checked_fingerprint
from blocksync.transports.interface import Control, Transport
from blocksync.transports.openssh import OpenSSH

# The libraries that the other two need are loaded when they are chosen.
# ruff: noqa: PLC0415

Kind = Literal["auto", "openssh", "paramiko", "tls"]
KINDS: tuple[str, ...] = get_args(Kind)

# Names an ssh_config(5) to read instead of the user's own.
SSH_CONFIG = "XEN2KVM_SSH_CONFIG"


def choose(
    host: HostName,
    *,
    kind: Kind = "auto",
    fingerprint: str | None = None,
    config: Path | None = None,
    notice: Callable[[str], None],
) -> Transport:
    """The transport to `host` of this kind: `auto` is the user's own ssh, or paramiko where there is none.

    `fingerprint` (SHA256:...) is trusted instead of known_hosts, `config` (by default what the variable
    XEN2KVM_SSH_CONFIG names) read instead of the user's ssh_config, and `notice` told what the user should
    know and nothing fails for. Nothing is connected yet. Raises Usage for a kind that is none, a fingerprint
    that is none and a file that is not there.
    """
    if kind not in KINDS:
        raise Usage(f"transport {kind}", "no such transport", f"one of {', '.join(KINDS)}")
    config = _named() if config is None else config
    if config is not None and not config.is_file():
        raise Usage(config, "is no file", f"correct --ssh-config, or the variable {SSH_CONFIG}")
    trusted = None if fingerprint is None else checked_fingerprint(fingerprint)
    control: Control
    if kind == "paramiko" or (kind != "openssh" and programs.look_up("ssh") is None):
        from blocksync.transports.paramiko_ssh import Paramiko

        control = Paramiko(host, config, trusted)
    else:
        control = OpenSSH(host, config, trusted)
    if kind == "tls":
        from blocksync.transports.tls import Tls

        return Tls(control, notice)
    if kind == "auto" and not isinstance(control, OpenSSH):
        notice("no ssh on PATH: paramiko is used, at about half its rate; apt-get install openssh-client")
    return control


def _named() -> Path | None:
    """The file that the environment names."""
    named = os.environ.get(SSH_CONFIG)
    return Path(named) if named else None
