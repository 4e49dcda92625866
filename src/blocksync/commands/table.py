"""What the `blocksync` command takes: one table of commands, arguments and options.

The help, the shell completion and the man pages are made from it by typer (see terminal.py). A complete and
plain command line is read from it directly, without typer: its import takes longer than a pass over a
gigabyte.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

Value = str | bool | tuple[str, ...] | None
Values = dict[str, Value]


class ValueKind(Enum):
    """What an option takes: nothing, one value, or one value each time it is given."""

    FLAG = 1
    ONE = 2
    MANY = 3


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument; all are required, and paths."""

    name: str
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option. `off` is the opposite of a flag; the flag's default is then true. `short` has one
    letter."""

    name: str
    help: str
    kind: ValueKind = ValueKind.ONE
    metavar: str = ""
    default: str | None = None
    off: str = ""
    short: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def unset(self) -> Value:
        """The value when the option is not given."""
        if self.kind is ValueKind.FLAG:
            return bool(self.off)
        return () if self.kind is ValueKind.MANY else self.default


@dataclass(frozen=True, slots=True)
class Command:
    """A command. `help` says what it does; its first line is the summary."""

    name: str
    help: str
    arguments: tuple[Argument, ...]
    options: tuple[Option, ...]


TARGET_OFFSET = Option(
    name="target_offset", metavar="BYTES", default="0", help="Where the range starts on the target."
)
SIZE = Option(name="size", metavar="BYTES", help="How much of the source; all of it if left out.")
DIRECT = Option(
    name="direct",
    kind=ValueKind.FLAG,
    help="Read regular files past the page cache too (large, cold images).",
)
CACHE = Option(
    name="cache",
    kind=ValueKind.FLAG,
    help="Read block devices through the page cache. Wrong for a running guest's volume: the guest writes "
    "underneath that cache, and stale bytes are copied.",
)
OVERRIDE = Option(
    name="override",
    kind=ValueKind.MANY,
    metavar="GUARD",
    help="Leave out a guard, by the name that its refusal gives. May be repeated.",
)
JSON = Option(
    name="json", kind=ValueKind.FLAG, help="Print one JSON object on standard output, also when it fails."
)
LOG_JSON = Option(
    name="log_json",
    kind=ValueKind.FLAG,
    help="Progress, notes and errors as JSON lines on standard error, and nothing else there.",
)
VERBOSE = Option(
    name="verbose",
    short="-v",
    kind=ValueKind.FLAG,
    help="Show each command that is run, with its arguments and its seconds.",
)
QUIET = Option(
    name="quiet",
    short="-q",
    kind=ValueKind.FLAG,
    help="Nothing on standard error but errors; the result as ever.",
)
NO_COLOR = Option(
    name="no_color", kind=ValueKind.FLAG, help="No colours; NO_COLOR in the environment does the same."
)

TRANSPORT = Option(
    name="transport",
    metavar="NAME",
    default="auto",
    help="How to reach the other host: openssh, paramiko, tls (for links faster than one ssh), or auto: the "
    "first of these that is there.",
)
FINGERPRINT = Option(
    name="host_key_fingerprint",
    metavar="SHA256:...",
    help="The other host's key, to be trusted instead of known_hosts.",
)
SSH_CONFIG = Option(
    name="ssh_config",
    metavar="FILE",
    help="An ssh_config(5) to read instead of your own; the variable XEN2KVM_SSH_CONFIG does the same.",
)
REACH = (TRANSPORT, FINGERPRINT, SSH_CONFIG)
SPEECH = (JSON, LOG_JSON, VERBOSE, QUIET, NO_COLOR)
WHERE = "Either end may be on another host, as ssh://[user@]host[:port]/path or [user@]host:/path."

SYNC = Command(
    "sync",
    f"Make the target range equal to the source, writing only blocks that differ.\n\n{WHERE}",
    (
        Argument("source", "Device or image file to read; it is never written."),
        Argument("target", "Device or image file to write; a missing file is made, sparse."),
    ),
    (
        TARGET_OFFSET,
        SIZE,
        Option(
            name="digests",
            metavar="FILE",
            help="Remembers what the target holds, so that the target is not read again.",
        ),
        Option(
            name="block_size",
            metavar="BYTES",
            help="Unit of comparing and of digests: a power of two from 4KiB to 16MiB. 16KiB if not given; "
            "32KiB for volumes above 64GiB, 64KiB above 128GiB.",
        ),
        Option(
            name="compare",
            kind=ValueKind.FLAG,
            off="--no-compare",
            help="Whether target blocks that no digest file knows are read and compared, or just written.",
        ),
        Option(
            name="hash",
            metavar="NAME",
            default="xxh3",
            help="What digests are made of: xxh3 (fast), or blake3 (slower; for guests that may be hostile).",
        ),
        Option(name="only", metavar="EXTENTS", help="Look only at the extents listed in this file."),
        Option(
            name="bwlimit",
            metavar="BYTES",
            help="Read and write no more than this in a second, together (between hosts: send); holes cost "
            "nothing. 50MiB, for one.",
        ),
        Option(name="dry_run", kind=ValueKind.FLAG, help="Say what would be written, and write nothing."),
        DIRECT,
        CACHE,
        OVERRIDE,
        *REACH,
        *SPEECH,
    ),
)

VERIFY = Command(
    "verify",
    "Compare both sides completely with BLAKE3; exit code 4 when they differ.\n\n"
    "The source may be on another host, as ssh://[user@]host[:port]/path or [user@]host:/path: each side is "
    "then read on its own.",
    (
        Argument("source", "Device or image file that is the original."),
        Argument("target", "Device or image file that must hold the same."),
    ),
    (TARGET_OFFSET, SIZE, DIRECT, CACHE, *REACH, *SPEECH),
)

TUNE = Command(
    "tune",
    "Measure reading, hashing, comparing and writing on these devices, and recommend a block size.",
    (
        Argument("source", "Device or image file that is to be copied; it is never written."),
        Argument("target", "Device or image file to copy to; it is not written without --rewrite."),
    ),
    (
        TARGET_OFFSET,
        Option(
            name="dirty",
            metavar="PATTERN",
            help="How changes lie: a share of the source in runs of a size, as 1%:4KiB, or several with +. "
            "If left out, the source is read twice to see what changes.",
        ),
        Option(
            name="interval",
            metavar="SECONDS",
            default="10",
            help="Between the two readings of the source.",
        ),
        Option(
            name="link",
            metavar="SPEED",
            help="Of the network between source and target, as 1Gbit; left out when both are on one host.",
        ),
        Option(
            name="rewrite",
            kind=ValueKind.FLAG,
            help="Measure writes on the target itself, by writing back the bytes that it holds; digest files "
            "about it are stale then. Without it a scratch file beside a target that is a file serves.",
        ),
        DIRECT,
        CACHE,
        OVERRIDE,
        *SPEECH,
    ),
)

CHANGED = Command(
    "changed",
    "Print the extents of a volume that may have changed, as an extents file for --only.",
    (Argument("volume", "Device or image file that is to be copied; a logical volume for --since."),),
    (
        Option(
            name="since",
            metavar="SNAPSHOT",
            help="An LVM snapshot of the volume, thick or thin: what was written since it was made. "
            "Where its list is lost, the whole volume is printed.",
        ),
        Option(name="only", metavar="EXTENTS", help="Another extents file, brought into order."),
        *SPEECH,
    ),
)

COMMANDS = (SYNC, VERIFY, TUNE, CHANGED)


def read(words: list[str]) -> tuple[Command, Values] | None:
    """The command and the values of a complete and plain command line.

    None for anything else (help, mistakes, abbreviations, `--`): typer reads those, and says what is wrong.
    """
    command = next((command for command in COMMANDS if words[:1] == [command.name]), None)
    if command is None:
        return None
    values: Values = {option.name: option.unset for option in command.options}
    flags = {option.flag: option for option in command.options}
    flags |= {name: option for option in command.options for name in (option.off, option.short) if name}
    places = [argument.name for argument in command.arguments]
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            if not places:
                return None
            values[places.pop(0)] = word
        elif not _read_option(word, flags, values, rest):
            return None
    return None if places else (command, values)


def _read_option(word: str, flags: dict[str, Option], values: Values, rest: Iterator[str]) -> bool:
    flag, equals, value = word.partition("=")
    option = flags.get(flag)
    if option is None:
        return False
    if option.kind is ValueKind.FLAG:
        values[option.name] = flag != option.off
        return not equals
    if not equals:
        value = next(rest, "-")
        if value.startswith("-"):
            return False
    before = values[option.name]
    values[option.name] = (*before, value) if isinstance(before, tuple) else value
    return True
