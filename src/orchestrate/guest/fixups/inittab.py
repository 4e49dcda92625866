"""/etc/inittab: gettys on the serial port and the screen instead of Xen's console.

Sources: inittab(5) (id:runlevels:action:process, ids of at most four characters); xen-tools' hook puts tty1's
getty on hvc0 and comments those of tty2 to tty6; xe-guest-utilities comments them as well. Busybox's init
(its examples/inittab; Alpine, Buildroot, OpenWrt) has no run levels, and its id is the terminal to open: a
line without one opens the console.
"""

import re
from collections.abc import Iterable

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.lines import bodies, rewritten, with_added
from orchestrate.guest.files.reading import Reading

NAME = "inittab"
REASON = "inittab starts a getty on the serial port and tty1 to tty6, because Xen's console is gone under KVM"

PATH = "/etc/inittab"
_ENTRY = re.compile(r"(?P<id>[^#:\s][^:]{0,3}):(?P<levels>[^:]*):(?P<action>respawn):(?P<process>.*getty.*)")
_SCREEN = re.compile(r"#+\s*(?P<entry>(?P<id>[1-6]):[2-5]+:respawn:.*getty\s(?:.*\s)?tty[1-6](?:\s.*)?)")
_SPEED = re.compile(r"(?<=[\s,])(?:9600|19200|38400|57600)(?=[\s,]|$)")
_XEN = re.compile(r"\b[hx]vc[0-9]+\b")
_BUSYBOX = re.compile(r"::(?:sysinit|wait|once|respawn|ask\w+|restart|ctrlaltdel|shutdown):.*")
_BUSYBOX_TERMINAL = re.compile(
    r"(?P<off>#+\s*)?(?P<id>[^#:\s]*):[^:]*:(?:respawn|respawnlate|ask\w+):(?P<process>.*)"
)
_CONSOLES = frozenset(["", "console"])


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """Nothing where init reads no gettys from inittab (Upstart, systemd)."""
    before = guest.read(PATH)
    if before is not None and any(_BUSYBOX.fullmatch(body) for body in bodies(before)):
        after = _busybox(before, facts)
        return (Edit(PATH, after, REASON),) if after != before else ()
    if before is None or not any(_ENTRY.fullmatch(body) for body in bodies(before)):
        return ()
    after = _with_serial(_without_xen(before, facts), facts)
    return (Edit(PATH, after, REASON),) if after != before else ()


def _busybox(content: bytes, facts: Facts) -> bytes:
    """Xen's terminal becomes the serial one, unless that or the console has a line already."""
    serial = facts.serial_console
    terminals = [match for match in map(_BUSYBOX_TERMINAL.fullmatch, bodies(content)) if match]
    live = [match for match in terminals if not match["off"]]
    has_serial = any(serial in (match["id"], *re.split(r"\W+", match["process"])) for match in live)
    on_xen = [match[0] for match in live if _XEN.search(match["id"]) or _XEN.search(match["process"])]
    moved = [] if has_serial else on_xen[:1]
    offered = [match[0] for match in terminals if match["off"] and match["id"] == serial]
    if not (has_serial or moved) and not any(match["id"] in _CONSOLES for match in live):
        moved = offered[:1]
        if not moved:
            return with_added(content, [f"{serial}::respawn:/sbin/getty -L {serial} 115200 vt100"])

    def line(body: str) -> str:
        if body in moved:
            return _SPEED.sub("115200", _XEN.sub(serial, body.lstrip("# \t")))
        return f"#{body}" if body in on_xen else body

    return rewritten(content, line)


def _without_xen(content: bytes, facts: Facts) -> bytes:
    entries = [match for match in map(_ENTRY.fullmatch, bodies(content)) if match]
    xen = [match for match in entries if _XEN.search(match["process"])]
    if not xen:
        return content
    has_screen = any(re.search(r"\btty1\b", match["process"]) for match in entries)
    # What id 1 was before xen-tools took it; another id is a console of its own, as in RHEL 5 (`co`).
    to_screen = [match[0] for match in xen if match["id"] == "1" and not has_screen][:1]
    to_serial = [match[0] for match in xen if match[0] not in to_screen][:1]
    if _serial(entries, facts):
        to_serial = []
    ids = {match["id"] for match in entries}

    def line(body: str) -> str:
        if body in to_screen:
            return _XEN.sub("tty1", body)
        if body in to_serial:
            return _SPEED.sub("115200", _XEN.sub(facts.serial_console, body))
        if any(body == match[0] for match in xen):
            return f"#{body}"
        screen = _SCREEN.fullmatch(body)
        if screen is None or screen["id"] in ids or _XEN.search(body):
            return body
        ids.add(screen["id"])
        return screen["entry"]

    return rewritten(content, line)


def _with_serial(content: bytes, facts: Facts) -> bytes:
    """`content` with a getty on the serial port: its own commented line for it, else a new one."""
    entries = [match for match in map(_ENTRY.fullmatch, bodies(content)) if match]
    if _serial(entries, facts):
        return content
    offered = re.compile(
        rf"#+\s*(?P<entry>[TS][0-9]:[^:]*:respawn:.*getty\s.*\b{re.escape(facts.serial_console)}\b.*)"
    )
    done: list[str] = []

    def line(body: str) -> str:
        match = offered.fullmatch(body)
        if match is None or done or match["entry"].partition(":")[0] in {entry["id"] for entry in entries}:
            return body
        done.append(body)
        return _SPEED.sub("115200", match["entry"])

    after = rewritten(content, line)
    return after if done else with_added(after, [_new_entry(entries, facts)])


def _new_entry(entries: Iterable[re.Match[str]], facts: Facts) -> str:
    used = {match["id"] for match in entries}
    if any(re.search(r"\b(?:agetty|mingetty)\b", match["process"]) for match in entries):
        identifier = _free(("S0", "s0", "xS0", "kvm"), used)
        return f"{identifier}:12345:respawn:/sbin/agetty {facts.serial_console} 115200 vt100-nav"
    identifier = _free(("T0", "S0", "xT0", "kvm"), used)
    return f"{identifier}:23:respawn:/sbin/getty -L {facts.serial_console} 115200 vt100"


def _free(identifiers: Iterable[str], used: set[str]) -> str:
    return next((each for each in identifiers if each not in used), "x2k")


def _serial(entries: Iterable[re.Match[str]], facts: Facts) -> bool:
    return any(re.search(rf"\b{re.escape(facts.serial_console)}\b", match["process"]) for match in entries)
