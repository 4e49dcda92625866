"""The Xen host's toolstack, `xl` or `xm`, and who has a volume open on that host.

Formats: `xl list` and `xm list` print `Name ID Mem VCPUs State Time(s)`, state as six flags of `rbpscd`; xend
also lists guests that do not run, with neither ID nor state. Backends stand in xenstore (`xenstore-ls -f`),
their devices as hexadecimal `major:minor`. Mounts: proc(5), mountinfo.
"""

import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from blocksync.errors import Failed, Refused
from blocksync.foreign import shown, shown_lines
from blocksync.hosts.host import Completed, Host

AUTOSTART = "/etc/xen/auto"
"""What xendomains starts with the host."""

_PATH = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/xen/bin; export PATH LC_ALL=C\n"
# xl refuses to work beside a running xend, and xm without one: the one that answers is the host's.
_FIND = """
found=
for tool in xl xm; do
    command -v $tool >/dev/null 2>&1 || continue
    found=$tool
    if listing=$($tool list 2>&1); then printf '%s\\n%s\\n' "$tool" "$listing"; exit 0; fi
done
[ -z "$found" ] && exit 3
printf '%s\\n' "$listing" >&2
exit 4
"""
_NO_TOOL = 3
# By the clock: where starting a program takes its time, a number of rounds would be much longer.
_WAIT = """
read -r now rest </proc/uptime
end=$((${now%%.*} + $3))
while [ "${now%%.*}" -lt $end ]; do
    "$1" domid "$2" >/dev/null 2>&1 || exit 0
    sleep 0.5
    read -r now rest </proc/uptime
done
exit 9
"""
# In the background and with its result in a folder: a link that is cut does not end the toolstack half way.
_BEGIN = """
folder=$(mktemp -d) || exit 1
( "$@" >"$folder/said" 2>&1; echo $? >"$folder/part"; mv "$folder/part" "$folder/status" ) \\
    </dev/null >/dev/null 2>&1 &
echo "$folder"
"""
_RESULT = """
read -r now rest </proc/uptime
end=$((${now%%.*} + 30))
while [ "${now%%.*}" -lt $end ]; do
    if [ -e "$1/status" ]; then cat "$1/status" "$1/said"; rm -r "$1"; exit 0; fi
    sleep 0.5
    read -r now rest </proc/uptime
done
exit 9
"""
_BUSY = 9
_LINES_SAID = 8
_WAIT_SECONDS = 30
_CREATE_SECONDS = 600.0
# What libxl and xend say when a device's script was slower than they wait: 40 s for each, 100 s for all.
_SLOW_SCRIPTS = ("because of timeout", "Hotplug scripts not working")
# Few programs: the guest is down meanwhile, and a slow host takes a quarter of a second to start one. Whoever
# has a device of device mapper open is in its count, so that nobody has to be looked for when that is 0.
_HOLDERS = """
for path; do
    printf 'volume %s\\n' "$path"
    [ -e "$path" ] || { echo missing; continue; }
    opened=
    if [ -b "$path" ]; then
        number=$(dmsetup info -c --noheadings --separator ' ' -o major,minor,open "$path" 2>/dev/null)
        case $number in
        [0-9]*' '[0-9]*' '[0-9]*)
            opened=${number##* }; number=${number% *}; major=${number% *}; minor=${number#* }
            echo "open $opened" ;;
        *)
            number=$(stat -L -c '%t %T' "$path"); major=$((0x${number% *})); minor=$((0x${number#* })) ;;
        esac
        echo "device $major:$minor"
        for holder in "/sys/dev/block/$major:$minor/holders"/*; do
            [ -e "$holder" ] && echo "holder ${holder##*/}"
        done
    fi
    if [ "$opened" != 0 ]; then
        real=$(readlink -f "$path")
        [ -f "$real" ] && losetup -j "$real" 2>/dev/null | sed 's/^/loop /'
        if command -v fuser >/dev/null 2>&1; then fuser "$real" 2>/dev/null
        else find /proc/[0-9]*/fd -lname "$real" 2>/dev/null | cut -d/ -f3 | sort -u | tr '\\n' ' '
        fi | sed 's/^ */process /'
    fi
    echo
done
echo mounts
cat /proc/self/mountinfo
echo backends
xenstore-ls -f /local/domain 2>/dev/null | grep -E '/backend/[^ ]*/(params|physical-device) = '
exit 0
"""
_WRITES = """
for path; do
    real=$(readlink -f "$path")
    stat -c '%n %s %y' "$real"
    if [ -b "$real" ]; then
        number=$(stat -c '%t %T' "$real")
        node=/sys/dev/block/$((0x${number% *})):$((0x${number#* }))
        read -r r1 r2 r3 r4 written merged sectors rest <"$node/stat" && echo "$written $merged $sectors"
    fi
done
exit 0
"""
# Each field ends in a zero byte, which no name holds.
_AUTOSTART = """
real=$(readlink -f "$1")
for entry in "$3"/*; do
    [ -e "$entry" ] || continue
    if [ -L "$entry" ]; then
        [ "$(readlink -f "$entry")" = "$real" ] && printf 'link\\0%s\\0%s\\0' "$entry" "$(readlink "$entry")"
    elif grep -Eq "^[[:space:]]*name[[:space:]]*=[[:space:]]*[\\"']$2[\\"']" "$entry"; then
        printf 'file\\0%s\\0\\0' "$entry"
    fi
done
exit 0
"""
_LINE = re.compile(r"(?:(\d+)\s+)?(\d+)\s+(\d+)(?:\s+([rbpscd-]{6}))?\s+([0-9.]+)")
_ANY_LINE = re.compile(rf"\S.*\s+{_LINE.pattern}")
_BACKEND = re.compile(r"(/local/domain/\d+/backend/\S+)/(params|physical-device) = \"(.*)\"")


class DomainState(StrEnum):
    """A domain that the hypervisor has. SHUTDOWN: it ended, or crashed, and its remains are kept."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shut down"


class SlowDevices(Failed):
    """A guest was not started because its host took too long over its devices. Another try may do."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a volume open, in words for the operator."""

    path: str
    who: str


@dataclass(frozen=True, slots=True)
class AutostartLink:
    """A link in `AUTOSTART`: its path, and what it says (not resolved)."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Toolstack:
    """`tool` on `host`. Every method raises `Failed` with the tool's own words when it fails."""

    host: Host
    tool: str

    def state(self, name: str) -> DomainState | None:
        """The state of the domain of exactly this name; None when the hypervisor has none."""
        return state_in(_text(self._script('exec "$1" list', self.tool)), name)

    def shutdown(self, name: str, seconds: float, *, wait_on: Callable[[], bool] = lambda: False) -> bool:
        """Ask the guest to shut down and wait; False when it is still there after `seconds`.

        Before it gives up, `wait_on` may say True: then it waits as long again.
        """
        self._script('exec "$1" shutdown "$2"', self.tool, name)
        while not self._gone(name, seconds):
            if not wait_on():
                return False
        return True

    def create(self, config: str) -> None:
        """Start the guest of a configuration there. Raises `SlowDevices` where the host was too busy."""
        folder = _text(self._script(_BEGIN, self.tool, "create", config)).strip()
        deadline = time.monotonic() + _CREATE_SECONDS
        while (told := self._run(_RESULT, folder)).status == _BUSY:
            if time.monotonic() > deadline:
                raise Failed(
                    f"{self.host.describe()}: {self.tool} create {config}",
                    f"has not ended within {_CREATE_SECONDS:g} s",
                    f"look there what it does; its output is in {folder}",
                )
        status, _, said = _text(told).partition("\n")
        if told.status or status != "0":
            kind = SlowDevices if any(words in said for words in _SLOW_SCRIPTS) else Failed
            cause = "; ".join(shown_lines(said, _LINES_SAID)) or told.complaint
            raise self._failed(f"create {config}", cause, kind)

    def destroy(self, name: str) -> None:
        """End the domain as pulling the plug does. Only for an operator who said so."""
        self._script('exec "$1" destroy "$2"', self.tool, name)

    def holders(self, paths: Sequence[str]) -> tuple[Holder, ...]:
        """Everything that has one of the volumes open on that host; with one command for all."""
        return holders_in(_text(self._script(_HOLDERS, *paths)))

    def writes(self, paths: Sequence[str]) -> str:
        """Something that is another one after each write to one of the volumes, by way of that host."""
        return _text(self._script(_WRITES, *paths))

    def autostart(self, config: str, name: str) -> tuple[AutostartLink, ...]:
        """The links that start this configuration with the host.

        Raises `Refused` (guard `autostart`) where a file of its own, no link, does so.
        """
        told = self._script(_AUTOSTART, config, re.escape(name), AUTOSTART).output
        fields = told.decode(errors="surrogateescape").split("\0")[:-1]
        links = []
        for kind, path, target in zip(*[iter(fields)] * 3, strict=True):
            # The journal keeps a link's name, as text.
            why = f"is no link to {config}" if kind == "file" else "has a name that is no UTF-8"
            if kind == "file" or not _is_text(path + target):
                raise Refused(
                    shown(path),
                    f"starts {name} with its host, and {why}",
                    f"move it out of {AUTOSTART} yourself",
                    guard="autostart",
                )
            links.append(AutostartLink(path, target))
        return tuple(links)

    def unlink(self, links: Sequence[AutostartLink]) -> None:
        """Take the links away; those that are gone already count as taken."""
        if links:
            self._script('exec rm -f -- "$@"', *(link.path for link in links))

    def link(self, links: Sequence[AutostartLink]) -> None:
        """Put the links back; one that is there already stays."""
        pairs = [text for link in links for text in (link.target, link.path)]
        loop = 'while [ $# -gt 1 ]; do [ -L "$2" ] || ln -s -- "$1" "$2" || exit 1; shift 2; done'
        if pairs:
            self._script(loop, *pairs)

    def _gone(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            self._run(_WAIT, self.tool, name, str(max(1, min(_WAIT_SECONDS, int(left)))))
            # By the listing: domid also fails when the toolstack does, and a kept guest has an ID.
            if self.state(name) in (None, DomainState.SHUTDOWN):
                return True
            if time.monotonic() >= deadline:
                return False

    def _run(self, script: str, *arguments: str) -> Completed:
        return self.host.run(["sh", "-c", _PATH + script, "xen2kvm", *arguments])

    def _script(self, script: str, *arguments: str) -> Completed:
        told = self._run(script, *arguments)
        if told.status:
            raise self._failed(shlex.join(arguments), told.complaint or f"status {told.status}")
        return told

    def _failed(self, what: str, said: str, kind: type[Failed] = Failed) -> Failed:
        return kind(
            f"{self.host.describe()}: {self.tool} {what}".replace(f"{self.tool} {self.tool}", self.tool),
            said,
            "correct what it names there, and run the same command again",
        )


def find(host: Host) -> Toolstack | None:
    """The toolstack that answers on `host`; None when it has neither `xl` nor `xm`.

    Raises `Failed` when there is one and it does not work.
    """
    told = host.run(["sh", "-c", _PATH + _FIND])
    if told.status == _NO_TOOL:
        return None
    if told.status:
        raise Failed(
            f"{host.describe()}: xl list",
            told.complaint or f"status {told.status}",
            "log in there as root and make the toolstack answer",
        )
    return Toolstack(host, _text(told).split("\n", 1)[0])


def state_in(listing: str, name: str) -> DomainState | None:
    """The state of `name` in what `list` printed. Raises `Failed` for anything that is no such listing."""
    head, *lines = listing.splitlines() or [""]
    if head.split()[:2] != ["Name", "ID"]:
        raise Failed("list of domains", f"has no known heading: {shown(head)!r}", "is this the Xen host?")
    for line in lines:
        # Names may hold blanks: what follows this one has to be the rest of a line.
        rest = line.removeprefix(name)
        if rest == line or not (rest[:1] or " ").isspace():
            continue
        match = _LINE.fullmatch(rest.strip())
        if match is None and _ANY_LINE.fullmatch(line.strip()):
            continue
        if match is None or (match[1] is None) is not (match[4] is None):
            raise Failed(
                "list of domains", f"cannot be understood: {shown(line)!r}", "is its format a new one?"
            )
        if match[1] is not None:
            return _state(match[4])
    return None


def _state(flags: str) -> DomainState:
    if "s" in flags or "c" in flags:
        return DomainState.SHUTDOWN
    return DomainState.PAUSED if "p" in flags else DomainState.RUNNING


def holders_in(report: str) -> tuple[Holder, ...]:
    """Who holds what, from the report of volumes, mounts and backends that the host gave."""
    volumes, _, rest = report.partition("\nmounts\n")
    mounts, found, backends = rest.partition("backends\n")
    if not found:
        raise Failed("list of holders", "was cut off", "run the same command again")
    holders: list[Holder] = []
    devices: dict[str, str] = {}
    for block in re.split(r"^volume ", volumes, flags=re.MULTILINE)[1:]:
        path, *lines = block.splitlines()
        devices |= {word: path for kind, word in _facts(lines) if kind == "device"}
        holders += [Holder(path, who) for fact in _facts(lines) if (who := _opener(*fact))]
        devices.setdefault(path, path)
    return (*holders, *_mounted(mounts, devices), *_backends(backends, devices))


def _facts(lines: Sequence[str]) -> list[tuple[str, str]]:
    return [(kind, rest.strip()) for kind, _, rest in (line.partition(" ") for line in lines)]


def _opener(kind: str, rest: str) -> str | None:
    match kind, rest:
        case "missing", _:
            return "it is not there any more"
        case "open", count if count != "0":
            return f"device mapper counts {count} openers"
        case "process", processes if processes:
            return shown(f"process {processes}")
        case "loop" | "holder", device:
            return shown(f"device {device.partition(':')[0]}")
    return None


def _mounted(mounts: str, devices: dict[str, str]) -> list[Holder]:
    fields = [line.split() for line in mounts.splitlines()]
    return [
        Holder(devices[words[2]], shown(f"mounted at {words[4]}"))
        for words in fields
        if len(words) > 4 and words[2] in devices
    ]


def _backends(lines: str, devices: dict[str, str]) -> list[Holder]:
    holders = {}
    for match in filter(None, map(_BACKEND.fullmatch, lines.splitlines())):
        path = devices.get(_decimal(match[3]) if match[2] == "physical-device" else _file(match[3]))
        if path is not None:
            holders[path, match[1]] = Holder(path, shown(f"backend {match[1]}"))
    return list(holders.values())


def _decimal(device: str) -> str:
    """`fe:3` as `254:3`."""
    major, _, minor = device.partition(":")
    try:
        return f"{int(major, 16)}:{int(minor, 16)}"
    except ValueError:
        return ""


def _file(params: str) -> str:
    """The path in a backend's params, which may open with a driver's name (`aio:/srv/web1.img`)."""
    return "/" + params.partition("/")[2]


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(told: Completed) -> str:
    return told.output.decode(errors="replace")
