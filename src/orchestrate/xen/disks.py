"""Disks of a Xen guest: what `disk = [...]` says, in the notations of xm and xl.

Rules: xl-disk-configuration(5); xm's own form is `PREFIX:TARGET,VDEV,ACCESS`, and xl's positional form
`TARGET,FORMAT,VDEV,ACCESS` or KEY=VALUE. A target that is no absolute path is below /dev.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrate.xen.devices import is_foreign_number, is_virtual_device, virtual_device
from orchestrate.xen.values import TextPosition, Value

FORMATS = frozenset(["raw", "qcow", "qcow2", "vhd", "qed", "vmdk"])

_PREFIX = re.compile(r"([a-z][a-z0-9]*):")
_FORMAT_PREFIXES = frozenset(["raw", "qcow", "qcow2", "vhd", "vmdk"])
_SCRIPT_PREFIXES = frozenset(["drbd", "iscsi", "nbd", "enbd"])
_FILE_PREFIXES = frozenset(["file", "tap", "tap2", "tapdisk", "aio", "sync"])
_PLAIN_PREFIXES = _FILE_PREFIXES | {"phy", "ioemu"}

_KEYED = re.compile(r"([a-z][-_a-z0-9]*)=(.*)", re.DOTALL)
_TARGET = re.compile(r"(?:^|,)\s*target=", re.DOTALL)
_SWALLOWED = re.compile(r",\s*(?:access|vdev|format|devtype|script|backendtype)=")
_KEYS = frozenset(["access", "backend", "devtype", "format", "script", "vdev"])
_IGNORED_KEYS = frozenset(
    [
        "active-disk",
        "backendtype",
        "colo-export",
        "colo-host",
        "colo-port",
        "grant_usage",
        "hidden-disk",
        "specification",
    ]
)
# Each is one that `left_behind` knows.
_WORDS = frozenset(["colo", "direct-io-safe", "discard", "no-colo", "no-discard", "trusted", "untrusted"])
_READ_ONLY = {"r": True, "ro": True, "r!": True, "w": False, "rw": False, "w!": False, "": False}

_FORMS = "write 'phy:/dev/VG/LV,xvda1,w' or 'format=raw, vdev=xvda1, access=rw, target=/dev/VG/LV'"


@dataclass(frozen=True, slots=True)
class XenDisk:
    """One disk or partition that a guest sees.

    `vdev` is its name in the guest (xvda2; sda2 and hda1 stay as configured), `target` what backs it on the
    Xen host (an absolute path unless a warning says otherwise), `format` one of `FORMATS`, `place` where it
    is configured, `others` what is set besides: access, script, words such as no-discard.
    """

    vdev: str
    target: str
    format: str
    readonly: bool
    place: TextPosition
    others: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def line(self) -> int:
        """The line of the configuration, from 1."""
        return self.place.line


@dataclass(frozen=True, slots=True)
class _Parts:
    """A specification taken apart, before it is judged."""

    target: str | None = None
    format: str | None = None
    vdev: str | None = None
    access: str | None = None
    script: str | None = None
    backend: str | None = None
    cdrom: bool = False
    of_file: bool = False
    words: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def warned(self, warning: str) -> "_Parts":
        return replace(self, warnings=(*self.warnings, warning))


def read_disk(specification: Value) -> tuple[XenDisk | None, tuple[str, ...]]:
    """Read one item of `disk`: text, or a group of its parts (`vdev`, `access` and so on, with `target`, or
    xend's `uname`, whose prefix counts).

    Returns None for a CD-ROM drive (a virtio guest gets none), and warnings. Raises `Usage` about the place.
    """
    place = specification.place
    if isinstance(specification.data, Mapping):
        parts = _parts_of_group(specification.data, place)
    else:
        parts = _parts_of_text(specification.text(), place)
    parts = _split_vdev(parts, place)
    if parts.cdrom or parts.format == "empty":
        left_out = f"CD-ROM {parts.vdev or 'drive'} with {parts.target} is left out"
        return None, _placed((*parts.warnings, left_out) if parts.target else parts.warnings, place)
    return _judged(parts, place)


def _judged(parts: _Parts, place: TextPosition) -> tuple[XenDisk, tuple[str, ...]]:
    vdev = parts.vdev
    if not parts.target:
        raise place.wrong("the disk has no target (the volume or file behind it)", _FORMS)
    if not vdev:
        raise place.wrong("the disk has no virtual device (such as xvda1)", _FORMS)
    if is_foreign_number(vdev):
        parts = parts.warned(f"device number {vdev} belongs to no disk driver: Linux guests leave it out")
    if parts.backend not in (None, "", "0", "Domain-0"):
        parts = parts.warned(f"the volume belongs to the domain {parts.backend}, not to dom0")
    parts = _resolved(parts)
    disk = XenDisk(
        vdev=virtual_device(vdev, place).name,
        target=parts.target or "",
        format=_format(parts.format or "raw", place),
        readonly=_readonly(parts.access or "", place),
        place=place,
        others=_others(parts),
    )
    return disk, _placed(parts.warnings, place)


def _others(parts: _Parts) -> tuple[tuple[str, str], ...]:
    named = (("access", parts.access), ("script", parts.script))
    words = tuple((word, "") for word in parts.words)
    return (*((name, value) for name, value in named if value), *words)


def _placed(warnings: tuple[str, ...], place: TextPosition) -> tuple[str, ...]:
    return tuple(f"{place}: {warning}" for warning in warnings)


def _format(word: str, place: TextPosition) -> str:
    if word not in FORMATS:
        raise place.wrong(f"unknown disk format {word[:40]!r}", f"one of {', '.join(sorted(FORMATS))}")
    return word


def _readonly(word: str, place: TextPosition) -> bool:
    if word not in _READ_ONLY:
        raise place.wrong(f"unknown access {word[:40]!r}", "r or ro for read-only, w or rw for writing")
    return _READ_ONLY[word]


def _resolved(parts: _Parts) -> _Parts:
    """The target as a path of the Xen host."""
    target = parts.target or ""
    if target.startswith("/"):
        return parts
    if parts.script in ("drbd", "block-drbd"):
        return replace(parts, target=f"/dev/drbd/by-res/{target}/0")
    if parts.script:
        return parts.warned(f"{target} is no path: Xen attaches it with the script {parts.script}")
    if parts.of_file:
        parts = parts.warned(f"the file {target} has no absolute path; taken as /dev/{target}, as xl does")
    return replace(parts, target=f"/dev/{target}")


def _split_vdev(parts: _Parts, place: TextPosition) -> _Parts:
    """Take `:cdrom` or `:disk` off the virtual device."""
    name, colon, kind = (parts.vdev or "").partition(":")
    if not colon:
        return parts
    if kind not in ("cdrom", "disk"):
        raise place.wrong(f"unknown kind of device {kind[:40]!r}", "disk or cdrom")
    return replace(parts, vdev=name, cdrom=parts.cdrom or kind == "cdrom")


def _parts_of_group(group: Mapping[str, Value], place: TextPosition) -> _Parts:
    parts = _keyed({name: group[name].text() for name in group if name in _KEYS}, place)
    parts = replace(parts, words=tuple(name for name in group if name in _WORDS))
    if "uname" in group:
        return _with_target(parts, group["uname"].text(), place)[0]
    return replace(parts, target=group["target"].text() if "target" in group else None)


def _parts_of_text(text: str, place: TextPosition) -> _Parts:
    start = _TARGET.search(text)
    keyed: dict[str, str] = {}
    positional: list[str] = []
    words: list[str] = []
    before = text[: start.start()] if start else text
    for piece in [piece.strip() for piece in before.split(",")] if before else []:
        if piece == "cdrom":
            keyed["devtype"] = piece
        elif assignment := _KEYED.fullmatch(piece):
            _keep(keyed, assignment[1], assignment[2].strip(), place)
        elif piece in _WORDS:
            words.append(piece)
        else:
            positional.append(piece)
    parts = replace(_keyed(keyed, place), words=tuple(words))
    if start:
        parts = _with_rest(parts, text[start.end() :].strip().removesuffix(",").strip())
    return _with_positions(parts, positional, place)


def _keep(keyed: dict[str, str], key: str, word: str, place: TextPosition) -> None:
    if key in _IGNORED_KEYS:
        return
    if key not in _KEYS:
        raise place.wrong(f"unknown disk parameter {key[:40]!r}", _FORMS)
    if keyed.get(key, word) != word:
        raise place.wrong(f"{key}= is given twice", f"keep one {key}=")
    keyed[key] = word


def _keyed(words: Mapping[str, str], place: TextPosition) -> _Parts:
    devtype = words.get("devtype", "disk")
    if devtype not in ("cdrom", "disk"):
        raise place.wrong(f"unknown devtype {devtype[:40]!r}", "disk or cdrom")
    return _Parts(
        format=words.get("format"),
        vdev=words.get("vdev"),
        access=words.get("access"),
        script=words.get("script"),
        backend=words.get("backend"),
        cdrom=devtype == "cdrom",
    )


def _with_rest(parts: _Parts, target: str) -> _Parts:
    if _SWALLOWED.search(target):
        parts = parts.warned(f"target= takes the rest of the text, so the target is {target!r}")
    return replace(parts, target=target)


def _with_positions(parts: _Parts, words: list[str], place: TextPosition) -> _Parts:
    """Give the words without a key to what is still open, in the order of xl, or of xm after a prefix."""
    words = list(words)
    prefixed = False
    if words and parts.target is None:
        parts, prefixed = _with_target(parts, words.pop(0), place)
    if words and not prefixed and parts.format is None:
        parts, words = _with_format(parts, words, place)
    if words and parts.vdev is None:
        parts = replace(parts, vdev=words.pop(0))
    if words and parts.access is None:
        parts = replace(parts, access=words.pop(0))
    if words and parts.backend is None and words[0]:
        parts = replace(parts, backend=words.pop(0))
    if any(words):
        raise place.wrong(f"too many parts: {', '.join(words)[:40]!r} is left over", _FORMS)
    return parts


def _with_format(parts: _Parts, words: list[str], place: TextPosition) -> tuple[_Parts, list[str]]:
    """The second word without a prefix: xl's format, or xm's virtual device."""
    word = words[0]
    if not parts.target and ":" in word:
        return replace(parts, format="empty"), words
    if word == "" or word in FORMATS or word == "empty":
        return replace(parts, format=word or "raw"), words[1:]
    if not is_virtual_device(word.partition(":")[0]):
        raise place.wrong(f"{word[:40]!r} is neither a disk format nor a virtual device", _FORMS)
    parts = replace(parts, format="raw").warned(
        f"no phy: or file: before {parts.target}: xl would take {word} for a format; read as xm does"
    )
    return parts, words


def _with_target(parts: _Parts, target: str, place: TextPosition) -> tuple[_Parts, bool]:
    """Set the target, its prefixes (phy:, tap:qcow2:, drbd: ...) resolved; and whether it had any."""
    prefixed = False
    while not target.startswith("/") and (found := _PREFIX.match(target)):
        prefix = found[1]
        if prefix in _FORMAT_PREFIXES:
            parts = replace(parts, format=prefix)
        elif prefix in _SCRIPT_PREFIXES:
            parts = replace(parts, script=f"block-{prefix}")
        elif prefix not in _PLAIN_PREFIXES:
            raise place.wrong(f"unknown prefix {prefix[:40]}: before the disk's target", _FORMS)
        parts = replace(parts, of_file=parts.of_file or prefix in _FILE_PREFIXES)
        target = target[found.end() :].lstrip()
        prefixed = True
        if parts.script:
            break
    return replace(parts, target=target.strip()), prefixed
