"""Telling the network where the guest's addresses are now: gratuitous ARP from its bridge.

Switches learn the MAC's new port from it, and neighbours the address. IPv6 guests announce themselves.
By Habets' `arping`: -U sends to everybody, -S and -s speak for the guest.
"""

import ipaddress
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blocksync.errors import Failed
from orchestrate.plan.model import Nic

_TIMES = 3
_PAUSE_SECONDS = 0.2
_MOST_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Announcement:
    """An IPv4 address, the MAC that has it, and the bridge to say it on."""

    address: str
    mac: str
    bridge: str


def announcements(nics: Sequence[Nic]) -> Iterator[Announcement]:
    """What to announce for the plan's cards: their IPv4 addresses, where their bridge is known."""
    for nic in nics:
        for text in nic.addresses:
            address = ipaddress.ip_interface(text).ip
            if nic.bridge is not None and address.version == 4:
                yield Announcement(str(address), nic.mac, nic.bridge)


def send(announcement: Announcement) -> None:
    """Say it a few times. Raises `Failed` when `arping` is missing or cannot send."""
    said = announcement
    argv = [
        *("arping", "-q", "-U", "-c", str(_TIMES), "-W", str(_PAUSE_SECONDS)),
        *("-i", said.bridge, "-s", said.mac, "-S", said.address, said.address),
    ]
    thing = f"announcing {said.address} on {said.bridge}"
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    except FileNotFoundError as error:
        raise Failed(thing, "arping not found on PATH", "apt-get install arping") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(thing, f"arping did not end within {_MOST_SECONDS} s", "look at the bridge") from error
    # Nobody answers a gratuitous request: status 1 alone is no failure.
    if done.returncode and done.stderr.strip():
        raise Failed(thing, done.stderr.strip(), f"ip link show {said.bridge}")
