"""Interface specifications."""

import pytest

from blocksync.errors import Usage
from orchestrate.xen.values import TextPosition, Value
from orchestrate.xen.vifs import Vif, read_vif

PLACE = TextPosition("guest.cfg", 20, 17)


def vif(
    mac: str | None = None,
    bridge: str | None = None,
    *,
    ips: tuple[str, ...] = (),
    script: str | None = None,
    model: str | None = None,
    name: str | None = None,
) -> Vif:
    return Vif(mac, bridge, ips, script, model, name, PLACE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "ip=10.0.0.5 ,mac=00:16:3E:0F:A0:01,bridge=xenbr0",
            vif("00:16:3e:0f:a0:01", "xenbr0", ips=("10.0.0.5",)),
            id="stray-white-space",
        ),
        pytest.param(
            " mac = 00:16:3e:0f:a0:01 , bridge = br0 ", vif("00:16:3e:0f:a0:01", "br0"), id="all-around"
        ),
        pytest.param(
            "mac=00:16:3e:0f:a0:01,ip=10.0.0.5 10.0.0.6  fe80::1",
            vif("00:16:3e:0f:a0:01", ips=("10.0.0.5", "10.0.0.6", "fe80::1")),
            id="several-addresses",
        ),
        pytest.param("mac=00-16-3E-0F-A0-01", vif("00:16:3e:0f:a0:01"), id="dashes"),
        pytest.param(
            "mac=00:16:3e:0f:a0:01,bridge=,script=vif-route,model=e1000,vifname=web1.0,rate=10Mb/s,type=vif",
            vif("00:16:3e:0f:a0:01", script="vif-route", model="e1000", name="web1.0"),
            id="every-key",
        ),
    ],
)
def test_interfaces_are_read(text: str, expected: Vif) -> None:
    assert read_vif(Value(text, PLACE)) == (expected, ())


@pytest.mark.parametrize("text", ["", " ", "bridge=br0", "mac=,bridge=br0"])
def test_a_missing_mac_is_told(text: str) -> None:
    read, warnings = read_vif(Value(text, PLACE))
    assert read.mac is None
    assert warnings == ("guest.cfg:20:17: the interface has no mac=: Xen draws a new one at every start",)


def test_words_without_a_key_are_passed_over_and_told() -> None:
    read, warnings = read_vif(Value("mac=00:16:3e:0f:a0:01,ioemu", PLACE))
    assert read == vif("00:16:3e:0f:a0:01")
    assert warnings == ("guest.cfg:20:17: `ioemu` in the interface is not KEY=VALUE; passed over",)


@pytest.mark.parametrize("mac", ["00:16:3e:0f:a0", "00:16:3e:0f:a0:0g", "00:16:3e:0f:a0:01:02", "random"])
def test_what_is_no_mac_is_refused(mac: str) -> None:
    with pytest.raises(Usage, match="is not a MAC address") as caught:
        read_vif(Value(f"mac={mac}", PLACE))
    assert caught.value.thing == "guest.cfg:20:17"
    assert caught.value.way_out
