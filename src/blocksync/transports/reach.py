"""How another host is reached, as the operator says it."""

from dataclasses import dataclass
from pathlib import Path

from blocksync.hosts.name import HostName
from blocksync.transports.choice import Kind, choose
from blocksync.transports.interface import Transport
from blocksync.voice import voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The kind of transport; the fingerprint of the host's key, if that is pinned; the ssh_config(5) that is
    read instead of the user's own.
    """

    transport: Kind = "auto"
    fingerprint: str | None = None
    config: Path | None = None

    def connection(self, host: HostName) -> Transport:
        """A transport to `host`; nothing is connected yet. Raises `Usage`, see `choose`."""
        return choose(
            host,
            kind=self.transport,
            fingerprint=self.fingerprint,
            config=self.config,
            notice=voice.note,
        )
