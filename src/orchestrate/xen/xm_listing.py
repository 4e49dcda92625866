"""Reader of `xm list -l` (s-expressions), the configuration as xend holds it.

Format: `(domain (name N) (memory MIB) (image (linux (kernel K) ...)) (device (vbd (uname phy:T) (dev V:disk)
(mode w))) ...)`. xend keeps the same in /var/lib/xend/domains/UUID/config.sxp. Values are bare words or text
in quotes with backslash escapes.
"""

import re
from collections.abc import Iterator

from orchestrate.xen.tokens import unquote
from orchestrate.xen.values import MAX_DEPTH, Settings, TextPosition, Value

_TOKEN = re.compile(
    r"""(?P<skip>\s+)|(?P<bracket>[()])|(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<word>[^\s()'"]+)""",
    re.VERBOSE | re.DOTALL,
)
_WAY_OUT = "write the file anew: xm list -l NAME > NAME.sxp"
_SCALARS = ("name", "uuid", "memory", "maxmem", "vcpus", "localtime", "bootloader")
_ACTIONS = ("on_poweroff", "on_reboot", "on_crash")
_BOOT = {"kernel": "kernel", "ramdisk": "ramdisk", "root": "root", "args": "extra", "localtime": "localtime"}
# What a running guest is in at the moment; no setting of its configuration.
_STATE = frozenset(
    [
        *(
            "domid",
            "state",
            "status",
            "start_time",
            "cpu_time",
            "up_time",
            "online_vcpus",
            "store_mfn",
            "console_mfn",
            "vbd",
            "vif",
            "tap",
            "tap2",
        ),
        *("memory_dynamic_min", "memory_dynamic_max", "memory_static_min", "memory_static_max", "notes"),
        *("vcpus_number", "device", "image", "xend_config_format", "superpages"),
    ]
)
_DEVICES = {"vkbd": "vkb", "console": "console"}
_DISK_KEYS = {"uname": "uname", "dev": "vdev", "mode": "access", "backend": "backend"}


def parse(text: str, name: str) -> Settings:
    """Read s-expressions `text` with exactly one guest; `name` (a file's path) opens every message.

    Raises `Usage` about `name:line:column`.
    """
    domains = [value for value in _expressions(text, name) if _head(value) == "domain"]
    start = TextPosition(name, 1, 1)
    if len(domains) != 1:
        raise start.wrong(f"the listing holds {len(domains)} guests, one is needed", _WAY_OUT)
    fields = domains[0].items()[1:]
    devices = [inner for field in fields if _head(field) == "device" for inner in field.items()[1:]]
    values = _others(fields, devices)
    values |= _taken(fields, {key: key for key in (*_SCALARS, *_ACTIONS)})
    values |= _image(fields)
    disks = [device for device in devices if _head(device) in ("vbd", "tap", "tap2")]
    vifs = [device for device in devices if _head(device) == "vif"]
    values["disk"] = Value(tuple(_group(disk, _DISK_KEYS) for disk in disks), domains[0].place)
    values["vif"] = Value(tuple(_group(vif, None) for vif in vifs), domains[0].place)
    return Settings(name, values)


def _others(fields: tuple[Value, ...], devices: list[Value]) -> dict[str, Value]:
    """What else is set or plugged in, so that nobody overlooks it."""
    values: dict[str, Value] = {}
    images = [part for field in fields if _head(field) == "image" for part in field.items()[1:]]
    inside = [part for image in images if _head(image) for part in image.items()[1:]]
    for field in (*fields, *inside):
        name = _head(field)
        if name and name not in _STATE and name not in _BOOT and len(field.items()) > 1:
            values[name] = _rest(field)
    for device in devices:
        name = _head(device)
        if name and name not in _STATE:
            values[_DEVICES.get(name, name)] = _rest(device)
    return values


def _rest(field: Value) -> Value:
    """What follows the word that opens a list: a lone word as it is, anything else as a list."""
    rest = field.items()[1:]
    alone = len(rest) == 1 and isinstance(rest[0].data, str)
    return rest[0] if alone else Value(rest, field.place)


def _image(fields: tuple[Value, ...]) -> dict[str, Value]:
    """What the guest boots: `(image (linux (kernel ...) ...))`, or hvm in place of linux."""
    for field in fields:
        if _head(field) == "image" and len(field.items()) > 1:
            image = field.items()[1]
            kind = Value(_head(image), image.place)
            return _taken(image.items()[1:] if _head(image) else (), _BOOT) | {"builder": kind}
    return {}


def _head(value: Value) -> str:
    """The word that opens a list, "" for anything else."""
    if isinstance(value.data, tuple) and value.data and isinstance(value.data[0].data, str):
        return value.data[0].data
    return ""


def _taken(fields: tuple[Value, ...], names: dict[str, str] | None) -> dict[str, Value]:
    """The `(NAME VALUE)` pairs, renamed; `None` takes them all. A pair without a value is not set."""
    found: dict[str, Value] = {}
    for field in fields:
        name = _head(field)
        wanted = name if names is None else names.get(name)
        if wanted and len(field.items()) > 1 and isinstance(field.items()[1].data, str):
            found.setdefault(wanted, field.items()[1])
    return found


def _group(device: Value, names: dict[str, str] | None) -> Value:
    return Value(_taken(device.items()[1:], names), device.place)


def _expressions(text: str, source: str) -> list[Value]:
    """All expressions of the text, read with a stack."""
    levels: list[list[Value]] = [[]]
    opened: list[TextPosition] = []
    for group, piece, place in _tokens(text, source):
        if piece == "(" and group == "bracket":
            if len(opened) == MAX_DEPTH:
                raise place.wrong(f"brackets nest more than {MAX_DEPTH} deep", _WAY_OUT)
            opened.append(place)
            levels.append([])
        elif piece == ")" and group == "bracket":
            if not opened:
                raise place.wrong("`)` closes nothing", _WAY_OUT)
            inside = tuple(levels.pop())
            levels[-1].append(Value(inside, opened.pop()))
        else:
            levels[-1].append(Value(unquote(piece) if group == "text" else piece, place))
    if opened:
        raise opened[-1].wrong("`(` is never closed", _WAY_OUT)
    return levels[0]


def _tokens(text: str, source: str) -> Iterator[tuple[str, str, TextPosition]]:
    line, line_start, at = 1, 0, 0
    while at < len(text):
        place = TextPosition(source, line, at - line_start + 1)
        match = _TOKEN.match(text, at)
        if match is None:
            raise place.wrong("a string starts here and is never closed", _WAY_OUT)
        if match.lastgroup and match.lastgroup != "skip":
            yield match.lastgroup, match.group(), place
        at = match.end()
        if "\n" in match.group():
            line += match.group().count("\n")
            line_start = match.start() + match.group().rindex("\n") + 1
