"""Two network namespaces and a link between them of a given rate and round-trip time.

Each has a TUN device. tc's token bucket (tbf) sets the rate at which packets leave it, and a process of ours
carries them over and holds each one for half of the round trip. That is what netem does, which many kernels
are built without.
"""

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

CARRIER = Path(__file__).with_name("carry_packets.py")
# Of the network that is set aside for measurements (RFC 2544).
NEAR_ADDRESS, FAR_ADDRESS = "198.18.0.1", "198.18.0.2"
MTU = 1500
# IPv4 and TCP with timestamps.
HEADERS = 52
# What a router holds back before it drops: a few round trips' worth.
QUEUE = "100ms"
BURST = 64 * 1024

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@dataclass(frozen=True, slots=True)
class Shape:
    """A link: bits a second each way, and seconds that a round trip takes."""

    rate: int
    round_trip: float

    @property
    def goodput(self) -> float:
        """Bytes a second of data that TCP can carry over it."""
        return self.rate / 8 * (MTU - HEADERS) / MTU

    def __str__(self) -> str:
        return f"{self.rate / 1e6:.0f} Mbit/s, {self.round_trip * 1e3:.0f} ms"


@dataclass(frozen=True, slots=True)
class Ends:
    """What to write before a command that is to run at either end."""

    near: tuple[str, ...]
    far: tuple[str, ...]


@contextmanager
def linked(shape: Shape) -> Iterator[Ends]:
    """Both namespaces with the link between them, while the context lasts."""
    names = [f"bench-{side}-{os.getpid()}" for side in ("near", "far")]
    with ExitStack() as stack:
        devices = [stack.enter_context(_namespace(name, shape)) for name in names]
        _address(names[0], NEAR_ADDRESS, FAR_ADDRESS)
        _address(names[1], FAR_ADDRESS, NEAR_ADDRESS)
        stack.enter_context(_carried(devices, shape.round_trip / 2))
        near, far = (("ip", "netns", "exec", name) for name in names)
        yield Ends(near, far)


@contextmanager
def _namespace(name: str, shape: Shape) -> Iterator[int]:
    """A namespace whose device `tun0` leads to the descriptor."""
    _ip("netns", "add", name)
    try:
        # Made out here and moved: the descriptor stays connected to it.
        made = f"bt{name.split('-')[1]}{os.getpid() % 10**7}"
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH14x", made.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(device, _TUNSETIFF, request)
            _ip("link", "set", made, "netns", name)
            _ip("-n", name, "link", "set", made, "name", "tun0", "mtu", str(MTU))
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "tun0", "up")
            shaping = ("tbf", "rate", f"{shape.rate}bit", "burst", str(BURST), "latency", QUEUE)
            _run("tc", "-n", name, "qdisc", "add", "dev", "tun0", "root", *shaping)
            yield device
        finally:
            os.close(device)
    finally:
        _end_processes(name)
        _ip("netns", "delete", name)


def _address(name: str, own: str, other: str) -> None:
    _ip("-n", name, "address", "add", own, "peer", other, "dev", "tun0")


@contextmanager
def _carried(devices: list[int], seconds: float) -> Iterator[None]:
    argv = [sys.executable, "-I", "-S", str(CARRIER), *map(str, devices), str(seconds)]
    process = subprocess.Popen(argv, pass_fds=devices, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _end_processes(name: str) -> None:
    """End what still runs in a namespace when a run is interrupted."""
    for pid in _ip("netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), SIGKILL)


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
