"""Reader of `xl list -l` (JSON), the configuration as libxl holds it for a running guest.

Format: libxl's `libxl_domain_config` as JSON; seen from xl 4.17, which leaves out whatever has its default
value: a disk without `readwrite` is read-only, an event without an action destroys the guest. Kernel, ramdisk
and command line stand in `b_info`, in older versions in its `type.pv` or `u`.
"""

import json
import re
from collections.abc import Iterator, Mapping

from orchestrate.xen.values import MAX_DEPTH, Data, Settings, TextPosition, Value

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_SCALAR = re.compile(r"-?[0-9][0-9.eE+-]{0,40}|true|false|null")
_WAY_OUT = "write the file anew: xl list -l NAME > NAME.json"

_ACTIONS = ("on_poweroff", "on_reboot", "on_crash")
_DISK_KEYS = {
    "pdev_path": "target",
    "vdev": "vdev",
    "format": "format",
    "script": "script",
    "backend_domname": "backend",
}
_NIC_KEYS = {"ifname": "vifname"}
# What libxl calls the settings that xl.cfg(5) has by another name, and those that are read here.
_NAMES = {
    "pcidevs": "pci",
    "dtdevs": "dtdev",
    "rdms": "rdm",
    "vfbs": "vfb",
    "vkbs": "vkb",
    "vtpms": "vtpm",
    "p9s": "p9",
    "channels": "channel",
    "usbctrls": "usbctrl",
    "usbdevs": "usbdev",
    "vdispls": "vdispl",
    "vsnds": "vsnd",
    "pvcallsifs": "pvcallsif",
    "disable_migrate": "nomigrate",
    "vcpu_hard_affinity": "cpus",
    "cpumap": "cpus",
    "vnuma_nodes": "vnuma",
    "ssid_label": "seclabel",
    "pool_name": "pool",
    "poolid": "pool",
    "weight": "cpu_weight",
}
_READ = frozenset(
    [
        *("c_info", "b_info", "u", "type.pv", "sched_params", "disks", "nics", *_ACTIONS),
        *("name", "uuid", "type", "kernel", "ramdisk", "cmdline", "bootloader", "localtime"),
        *("target_memkb", "max_memkb", "max_vcpus", "avail_vcpus"),
    ]
)


def parse(text: str, name: str) -> Settings:
    """Read JSON `text` with exactly one guest: an array with one, the guest, or its `config` alone.

    `name` (a file's path) opens every message. Raises `Usage` about `name:line:column`.
    """
    reader = _Reader(text, name)
    config = _guest(reader.whole())
    values = _others(config)
    values |= {key: config.get(key, Value("destroy", config["c_info"].place)) for key in _ACTIONS}
    values |= _created(_group(config, "c_info")) | _built(_group(config, "b_info"))
    for plural, singular, item in (("disks", "disk", _disk), ("nics", "vif", _nic)):
        if plural in config:
            items = tuple(item(one) for one in config[plural].items())
            values[singular] = Value(items, config[plural].place)
    return Settings(name, values)


def _guest(top: Value) -> Mapping[str, Value]:
    guests = top.items() if isinstance(top.data, tuple) else (top,)
    if len(guests) != 1:
        raise top.place.wrong(f"the listing holds {len(guests)} guests, one is needed", _WAY_OUT)
    fields = guests[0].fields()
    config = fields["config"].fields() if "config" in fields else fields
    if "c_info" not in config or "b_info" not in config:
        raise guests[0].place.wrong("this JSON is no guest of xl (c_info and b_info are missing)", _WAY_OUT)
    return config


def _group(fields: Mapping[str, Value], name: str) -> Mapping[str, Value]:
    return fields[name].fields() if name in fields else {}


def _created(info: Mapping[str, Value]) -> dict[str, Value]:
    return {key: info[key] for key in ("name", "uuid", "type") if key in info}


def _built(info: Mapping[str, Value]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for group in (_group(info, "u"), _group(info, "type.pv"), info):
        values |= {key: group[key] for key in ("kernel", "ramdisk", "cmdline", "bootloader") if key in group}
    for key, kib in (("memory", "target_memkb"), ("maxmem", "max_memkb")):
        if kib in info:
            values[key] = Value(info[kib].number() // 1024, info[kib].place)
    if "localtime" in info and info["localtime"].data != "<default>":
        values["localtime"] = info["localtime"]
    if "avail_vcpus" in info:
        values["vcpus"] = Value(len(info["avail_vcpus"].items()), info["avail_vcpus"].place)
    elif "max_vcpus" in info:
        values["vcpus"] = info["max_vcpus"]
    return values


def _others(config: Mapping[str, Value]) -> dict[str, Value]:
    """What else is set, in the names of xl.cfg(5), so that nobody overlooks it."""
    values: dict[str, Value] = {}
    info = dict(_group(config, "b_info"))
    for group in (_group(config, "c_info"), _group(info, "u"), _group(info, "type.pv"), info, config):
        for name, value in _set(group).items():
            if name not in _READ and value.data not in ("<default>", "<unknown>", "", {}, ()):
                values[_NAMES.get(name, name)] = value
    for name, value in _group(info, "sched_params").items():
        values[_NAMES.get(name, name)] = value
    most, now = info.get("max_vcpus"), info.get("avail_vcpus")
    if most and now and most.number() > len(now.items()):
        values["maxvcpus"] = most
    return values


def _disk(item: Value) -> Value:
    fields = item.fields()
    words = {_DISK_KEYS[key]: value for key, value in _set(fields).items() if key in _DISK_KEYS}
    if "discard_enable" in fields and fields["discard_enable"].data in (False, "False"):
        words["no-discard"] = fields["discard_enable"]
    words["access"] = Value("rw" if _is_true(fields, "readwrite") else "ro", item.place)
    words["devtype"] = Value("cdrom" if _is_true(fields, "is_cdrom") else "disk", item.place)
    return Value(words, item.place)


def _nic(item: Value) -> Value:
    return Value({_NIC_KEYS.get(key, key): value for key, value in _set(item.fields()).items()}, item.place)


def _set(fields: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in fields.items() if value.data is not None}


def _is_true(fields: Mapping[str, Value], key: str) -> bool:
    return key in fields and fields[key].flag()


class _Reader:
    """JSON with the place of every value, for messages; the json module decodes strings and numbers."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._depth = 0

    def whole(self) -> Value:
        value = self._value()
        if self._peek():
            raise self._place().wrong("something follows the JSON value", _WAY_OUT)
        return value

    def _value(self) -> Value:
        character = self._peek()
        place = self._place()
        if character == "{":
            return Value(self._object(), place)
        if character == "[":
            return Value(self._array(), place)
        return Value(self._scalar(), place)

    def _object(self) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        for _ in self._members("}"):
            self._peek()
            key = str(self._matched(_STRING, "a name in double quotes"))
            self._take(":")
            fields[key] = self._value()
        return fields

    def _array(self) -> tuple[Value, ...]:
        return tuple(self._value() for _ in self._members("]"))

    def _members(self, closing: str) -> Iterator[None]:
        """Stop before each member between the bracket that comes next and `closing`."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._place().wrong(f"brackets nest more than {MAX_DEPTH} deep", _WAY_OUT)
        self._at += 1
        if self._peek() != closing:
            yield
            while self._peek() == ",":
                self._at += 1
                yield
        self._take(closing)
        self._depth -= 1

    def _scalar(self) -> Data:
        if self._peek() == '"':
            return self._matched(_STRING, "a string")
        return self._matched(_SCALAR, "a JSON value")

    def _matched(self, pattern: re.Pattern[str], expected: str) -> Data:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._place().wrong(f"{expected} was expected", _WAY_OUT)
        try:
            decoded: str | int | float | bool | None = json.loads(match.group())
        except ValueError:
            raise self._place().wrong(
                f"{expected} was expected, not {match.group()[:40]}", _WAY_OUT
            ) from None
        self._at = match.end()
        return decoded

    def _peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        match = _SPACE.match(self._text, self._at)
        if match is not None and match.end() > self._at:
            lines = match.group().count("\n")
            if lines:
                self._line += lines
                self._line_start = self._text.rindex("\n", self._at, match.end()) + 1
            self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise self._place().wrong(f"`{character}` was expected", _WAY_OUT)
        self._at += 1

    def _place(self) -> TextPosition:
        return TextPosition(self._source, self._line, self._at - self._line_start + 1)
