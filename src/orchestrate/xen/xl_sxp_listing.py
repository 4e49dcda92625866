"""Reader of what `xl list -l` printed before JSON (Xen 4.0 to 4.2, later with output_format="sxp").

Format: xl's `printf_info_sexp`. It looks like xend's s-expressions and is none: one bracket too many closes
the image, nothing is quoted, a text that is not set is `(null)`, and a MAC has no colons. But every setting
has a line of its own, whose last bracket is its own: the lines are read, and the brackets between are not.
The listing names no bridge and none of the events (on_reboot and the like).
"""

import re

from orchestrate.xen.values import Settings, TextPosition, Value

_FORM = re.compile(r"\s*\(domain\s*\n\s*\(domid -?[0-9]+\)\s*\n\s*\((?:domain_)?create_info\)")
_LINE = re.compile(r"\s*\((?P<name>[\w]+)(?: (?P<value>.*))?\)\s*")
_OPEN = re.compile(r"\s*\((?P<name>[\w]+)\s*")
_CLOSED = re.compile(r"\s*\)?\s*")
_WAY_OUT = "hand in the guest's configuration file instead, as in /etc/xen/NAME.cfg"

_SAYS_LESS = (
    "this listing names no bridges and no formats of images: the guest's configuration file says more"
)
_HEAD = {
    "name": "name",
    "uuid": "uuid",
    "bootloader": "bootloader",
    "kernel": "kernel",
    "ramdisk": "ramdisk",
    "cmdline": "cmdline",
}
_DISK = {"physpath": "target", "virtpath": "vdev"}
# What a running guest is in at the moment, and headings.
_STATE = frozenset(
    [
        *("domid", "create_info", "domain_create_info", "build_info", "domain_build_info"),
        *("linux", "unpluggable", "phystype", "xsdata", "platformdata"),
    ]
)
_NOT_SET = frozenset(["(null)", "<unknown>", "<default>", "", "default"])


def is_one(text: str) -> bool:
    """Whether `text` is such a listing."""
    return _FORM.match(text) is not None


def parse(text: str, name: str) -> Settings:
    """Read the listing of exactly one guest; `name` (a file's path) opens every message.

    Raises `Usage` about `name:line:column`.
    """
    guests = len(re.findall(r"^\(domain\s*$", text, re.MULTILINE))
    start = TextPosition(name, 1, 1)
    if guests != 1:
        raise start.wrong(
            f"the listing holds {guests} guests, one is needed", "write it anew: xl list -l NAME > NAME.sxp"
        )
    values: dict[str, Value] = {}
    devices: dict[str, list[Value]] = {"tap": [], "vif": []}
    device: dict[str, Value] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        place = TextPosition(name, number, len(line) - len(line.lstrip()) + 1)
        if opened := _OPEN.fullmatch(line):
            kind = opened["name"]
            if kind == "hvm":
                values["type"] = Value("hvm", place)
            elif kind not in {"domain", "image", "device"}:
                device = {}
                devices.setdefault(kind, []).append(Value(device, place))
            continue
        setting = _LINE.fullmatch(line)
        if setting is None and not _CLOSED.fullmatch(line):
            raise place.wrong("this line is no setting of xl's listing", _WAY_OUT)
        if setting is not None:
            _put(values if device is None else device, setting, place)
    values |= {kind: _listed(found, start) for kind, found in devices.items() if kind not in {"tap", "vif"}}
    values["disk"] = Value(tuple(_disk(each) for each in devices["tap"]), start)
    values["vif"] = Value(tuple(_nic(each) for each in devices["vif"]), start)
    return Settings(name, _named(values), (f"{name}: {_SAYS_LESS}",))


def _put(group: dict[str, Value], setting: re.Match[str], place: TextPosition) -> None:
    value = (setting["value"] or "").strip()
    if value not in _NOT_SET and setting["name"] not in _STATE:
        group[setting["name"]] = Value(value, place)


def _listed(found: list[Value], place: TextPosition) -> Value:
    return Value(tuple(found), found[0].place if found else place)


def _named(values: dict[str, Value]) -> dict[str, Value]:
    """The settings by their names in xl.cfg(5)."""
    named: dict[str, Value] = {}
    for name, value in values.items():
        if name in {"target_memkb", "max_memkb"}:
            key = "memory" if name == "target_memkb" else "maxmem"
            named[key] = Value(value.number() // 1024, value.place)
        elif name == "max_vcpus":
            named["vcpus"] = value
        elif name == "hvm":
            if value.flag():
                named["type"] = Value("hvm", value.place)
        else:
            named[_HEAD.get(name, name)] = value
    return named


def _disk(device: Value) -> Value:
    fields = device.fields()
    words: dict[str, Value] = {_DISK[key]: value for key, value in fields.items() if key in _DISK}
    words["access"] = Value("rw" if _is(fields.get("readwrite")) else "ro", device.place)
    words["devtype"] = Value("cdrom" if _is(fields.get("is_cdrom")) else "disk", device.place)
    if "backend_domid" in fields:
        words["backend"] = fields["backend_domid"]
    return Value(words, device.place)


def _nic(device: Value) -> Value:
    words = dict(device.fields())
    mac = words["mac"].text() if "mac" in words else ""
    if re.fullmatch(r"[0-9a-fA-F]{12}", mac):
        words["mac"] = Value(":".join(mac[at : at + 2] for at in range(0, 12, 2)), words["mac"].place)
    return Value(words, device.place)


def _is(value: Value | None) -> bool:
    return value is not None and value.flag()
