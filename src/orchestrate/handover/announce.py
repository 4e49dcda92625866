"""Whether the guest's addresses answer, and telling the network where they are now: by ARP, on its bridge.

Switches learn the MAC's new port from it, and neighbours the address. IPv6 guests announce themselves.
By Habets' `arping`: -U sends to everybody, -S and -s speak for the guest, -0 asks as nobody.
"""

import ipaddress
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from blocksync.errors import BlocksyncError, Failed
from blocksync.foreign import shown_bytes
from blocksync.hosts import programs
from blocksync.hosts.host import Completed, here
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


def missing(announcements: Sequence[Announcement], seconds: float) -> tuple[str, ...]:
    """Wait until each address answers, all at once and `seconds` at most: a line for each that does not, or
    that another card answers for.
    """
    with ThreadPoolExecutor(max(1, len(announcements))) as pool:
        told = pool.map(lambda one: _missing(one, time.monotonic() + seconds, seconds), announcements)
        return tuple(line for line in told if line)


def send(announcement: Announcement) -> None:
    """Say it a few times. Raises `Failed` when `arping` is missing or cannot send."""
    said = announcement
    options = ["-q", "-U", "-c", str(_TIMES), "-W", str(_PAUSE_SECONDS), "-s", said.mac, "-S", said.address]
    done = _arping(said, f"announcing {said.address} on {said.bridge}", options)
    # Nobody answers a gratuitous request: status 1 alone is no failure.
    if done.status and done.complaint:
        raise _failed(f"announcing {said.address} on {said.bridge}", said, done.complaint)


def _missing(asked: Announcement, until: float, seconds: float) -> str:
    try:
        while not (answer := _answer(asked)):
            if time.monotonic() > until:
                return (
                    f"{asked.address} does not answer on {asked.bridge} after {seconds:g} s: "
                    "is it the guest's address still, and its card up?"
                )
    except BlocksyncError as error:
        return str(error)
    if answer == asked.mac.lower():
        return ""
    return f"{asked.address} is answered by {answer} on {asked.bridge}, not by the guest's {asked.mac}"


def _answer(asked: Announcement) -> str:
    """The MAC that answers within a second, in lower case; nothing if none does."""
    thing = f"asking for {asked.address} on {asked.bridge}"
    once = ["-r", "-c", "1", "-C", "1", "-w", "1"]
    done = _arping(asked, thing, once)
    if done.complaint and not done.output.strip():
        # A bridge without an address of its own has none to ask from.
        done = _arping(asked, thing, [*once, "-0"])
    answers = done.output.split()
    if not answers and done.complaint:
        raise _failed(thing, asked, done.complaint)
    return shown_bytes(answers[0]).lower() if answers else ""


def _arping(about: Announcement, thing: str, options: Sequence[str]) -> Completed:
    argv = [programs.find("arping"), *options, "-i", about.bridge, about.address]
    try:
        done = here(argv, seconds=_MOST_SECONDS)
    except Failed as error:
        raise Failed(thing, f"arping: {error.cause}", "look at the bridge") from error
    return done


def _failed(thing: str, about: Announcement, said: str) -> Failed:
    return Failed(thing, said, f"ip link show {about.bridge}")
