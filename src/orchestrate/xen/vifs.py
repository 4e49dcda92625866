"""Network interfaces of a Xen guest: what `vif = [...]` says.

Rules: xl-network-configuration(5). Xen-tools writes stray white space and may write an empty text. What the
keys that are not read here (rate, backend, netdev ...) meant is `left_behind`'s to say.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from blocksync.foreign import shown
from orchestrate.xen.values import TextPosition, Value

_KEYS = frozenset(["mac", "bridge", "ip", "script", "model", "vifname"])
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,63}")
_SWITCHED = re.compile(r"([^.:]+)((?:\.[0-9]+)?(?::[0-9]+)*)")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Vif:
    """One interface.

    `mac` is lower case, None when Xen draws one at each start; `bridge` is the host's bridge, `ips` what the
    host's script was told, `name` the host's end of it (vifname=), `place` where it is configured, `others`
    the keys besides these and what they are set to,
    `trunk` the VLANs that Open vSwitch's notation (BRIDGE[.VLAN][:VLAN...]) adds to a bridge.
    """

    mac: str | None
    bridge: str | None
    ips: tuple[str, ...]
    script: str | None
    model: str | None
    name: str | None
    place: TextPosition
    others: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    trunk: str | None = None

    @property
    def line(self) -> int:
        """The line of the configuration, from 1."""
        return self.place.line


def read_vif(specification: Value) -> tuple[Vif, tuple[str, ...]]:
    """Read one item of `vif`: text, or a group with the same keys. Also returns warnings.

    Raises `Usage` about the place for a MAC address, an IP address or a bridge that is none.
    """
    place = specification.place
    if isinstance(specification.data, Mapping):
        strays: list[str] = []
        words = {
            key: value.text() if key in _KEYS else value.shown() for key, value in specification.data.items()
        }
    else:
        words, strays = _taken_apart(specification.text())
    bridge, trunk = _bridge(words.get("bridge", ""), words.get("script", ""), place)
    vif = Vif(
        mac=_mac(words.get("mac", ""), place),
        bridge=bridge,
        ips=tuple(_address(word, place) for word in words.get("ip", "").split()),
        script=words.get("script") or None,
        model=words.get("model") or None,
        name=words.get("vifname") or None,
        place=place,
        trunk=trunk,
        others=tuple((key, word) for key, word in words.items() if key not in _KEYS and word),
    )
    warnings = [f"{place}: `{stray}` in the interface is not KEY=VALUE; passed over" for stray in strays]
    if vif.mac is None:
        warnings.append(f"{place}: the interface has no mac=: Xen draws a new one at every start")
    return vif, tuple(warnings)


def _taken_apart(text: str) -> tuple[dict[str, str], list[str]]:
    words: dict[str, str] = {}
    strays = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, word = piece.partition("=")
        if equals:
            words[key.strip().lower()] = word.strip()
        else:
            strays.append(piece)
    return words, strays


def _address(text: str, place: TextPosition) -> str:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        raise place.wrong(
            f"{shown(text, 40)!r} is not an IP address", "write ip=ADDRESS, or ip=ADDRESS/PREFIX"
        ) from None
    return text


def _bridge(text: str, script: str, place: TextPosition) -> tuple[str | None, str | None]:
    """The bridge, and the VLANs behind its name where the name is in Open vSwitch's notation."""
    switched = _SWITCHED.fullmatch(text)
    if switched and (script.endswith("vif-openvswitch") or (":" in text and not script)):
        return switched[1], switched[2].lstrip(".:") or None
    if text and not _BRIDGE.fullmatch(text):
        raise place.wrong(f"{shown(text, 40)!r} is not a bridge's name", "write bridge=NAME, such as xenbr0")
    return text or None, None


def _mac(text: str, place: TextPosition) -> str | None:
    mac = text.lower().replace("-", ":")
    if not mac:
        return None
    if not _MAC.fullmatch(mac):
        raise place.wrong(
            f"{text[:40]!r} is not a MAC address", "write six pairs of hex digits: 00:16:3e:01:02:03"
        )
    return mac
