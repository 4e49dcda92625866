"""`xen2kvm prepare`: run the script inside the guest, and prove by a reboot that Xen still boots it."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from blocksync.errors import Differences, Failed
from blocksync.foreign import shown, shown_lines
from blocksync.hosts.host import FarHost, pieces
from blocksync.transports.interface import Channel, Transport
from orchestrate.guest.prepare import script as prepare
from orchestrate.guest.prepare.script import Line

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PAUSE = 3.0
_ENDED_LINK = 255
# Packages may be fetched over a slow line, and nothing is said meanwhile.
_MOST_SECONDS, _MOST_SILENCE = 6 * 3600.0, 1800.0
_MOST_BYTES, _LONGEST_LINE = 4 << 20, 4096
_MOST_ANSWER = 1 << 20
_COMPLAINTS = 10
_STATE = "uname -r; cut -d' ' -f2 /proc/mounts | sort -u; sed -n '2,$s/ .*//p' /proc/swaps"
"""What has to be the same after a reboot: the kernel, what is mounted, and the swap."""


@dataclass(frozen=True, slots=True)
class Rebooted:
    """A reboot under Xen that went well: the kernel's version, and seconds until ssh answered again."""

    kernel: str
    seconds: float


def run(transport: Transport, options: tuple[str, ...], tell: Callable[[Line], None]) -> tuple[Line, ...]:
    """Run the script on the guest with `options` (--dry-run, --undo); each line is told as it comes.

    Raises `Failed` with what the script complained of.
    """
    channel = transport.run(["sh", "-s", "--", *options])
    try:
        _send(channel, prepare.script().encode())
        lines = _lines(channel, f"prepare on {transport.describe()}", tell)
        status = channel.wait(60)
        if status:
            raise _failure(transport, status, channel.stderr_tail())
        return lines
    finally:
        channel.close()


def _send(channel: Channel, script: bytes) -> None:
    # A shell that ended early says why on its standard error.
    with contextlib.suppress(BrokenPipeError):
        rest = memoryview(script)
        while rest:
            rest = rest[channel.stdin.write(rest) or 0 :]
    channel.stdin.close()


def _lines(channel: Channel, thing: str, tell: Callable[[Line], None]) -> tuple[Line, ...]:
    """The script's lines; whatever else is printed is passed over. Raises Failed for a guest that goes on and
    on.
    """
    found, rest = [], b""
    coming = pieces(channel.stdout, thing, most=_MOST_BYTES, seconds=_MOST_SECONDS, silence=_MOST_SILENCE)
    for piece in coming:
        *printed, rest = (rest + piece).split(b"\n")
        if max(map(len, (*printed, rest))) > _LONGEST_LINE:
            raise Failed(thing, f"prints a line of more than {_LONGEST_LINE} bytes", "is that the guest?")
        for line in filter(None, (prepare.line(each.decode(errors="replace")) for each in printed)):
            found.append(line)
            tell(line)
    return tuple(found)


def _failure(transport: Transport, status: int, complaint: str) -> Failed:
    last = "; ".join(shown_lines(complaint, _COMPLAINTS))
    if status == _ENDED_LINK:
        return Failed(transport.describe(), f"the connection ended: {last}", "run the same command again")
    return Failed(
        f"prepare on {transport.describe()}",
        last or f"the script ended with status {status}",
        "mend that and run the same command again: what is done already is left alone",
    )


def reboot(connect: Callable[[], Transport], seconds: float, clock: Callable[[], float]) -> Rebooted:
    """Reboot the guest and wait until ssh answers from another boot, at most `seconds`.

    Raises `Failed` when it does not come back, `Differences` when its kernel, mounts or swap are others.
    """
    before, state = _ask(connect, f"cat {_BOOT_ID}"), _ask(connect, _STATE)
    if not state:
        raise Failed("the guest", "says nothing of its kernel and its mounts", "see what `uname -r` prints")
    began = clock()
    _start_reboot(connect)
    while _boot_id(connect) in {None, before}:
        if clock() - began > seconds:
            raise Failed(
                "the guest's reboot",
                f"ssh does not answer from a new boot after {seconds:g} s",
                "look at its console on the Xen host: xl console NAME",
            )
        time.sleep(_PAUSE)
    took = clock() - began
    _compare(connect, state, until=began + seconds, clock=clock)
    return Rebooted(shown(state.splitlines()[0]), took)


def _compare(
    connect: Callable[[], Transport], before: str, *, until: float, clock: Callable[[], float]
) -> None:
    """sshd may answer before the last file system is mounted."""
    while True:
        after = _ask(connect, _STATE)
        missing = set(before.splitlines()) - set(after.splitlines())
        if not missing:
            return
        if clock() > until:
            lacking = shown(", ".join(sorted(missing)))
            raise Differences(
                "the guest after its reboot",
                f"it lacks {lacking}, which it had before (kernel, mount points, swap)",
                "compare /etc/fstab with /etc/fstab.xen2kvm-before in it, or run prepare --undo",
            )
        time.sleep(_PAUSE)


def _ask(connect: Callable[[], Transport], line: str) -> str:
    transport = connect()
    host = FarHost(transport)
    try:
        done = host.run(["sh", "-c", line], most=_MOST_ANSWER)
        if done.status:
            raise Failed(transport.describe(), done.complaint or f"status {done.status}")
        return done.output.decode(errors="replace").strip()
    finally:
        host.close()
        transport.close()


def _boot_id(connect: Callable[[], Transport]) -> str | None:
    """None while nobody answers, which is what a reboot looks like."""
    try:
        return _ask(connect, f"cat {_BOOT_ID}")
    except (Failed, OSError):
        return None


def _start_reboot(connect: Callable[[], Transport]) -> None:
    # The link ends with the guest, sooner or later than the command: no status tells anything.
    with contextlib.suppress(Failed, OSError):
        _ask(connect, "shutdown -r now </dev/null >/dev/null 2>&1 &")
