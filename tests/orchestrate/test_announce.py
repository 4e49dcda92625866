"""Real packets: what a neighbour on the bridge hears and believes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blocksync.errors import Failed
from blocksync.hosts import programs
from orchestrate.handover.announce import Announcement, announcements, missing, send
from orchestrate.plan.model import Nic

MAC, ADDRESS = "00:16:3e:12:34:56", "192.0.2.7"
BRIDGE = "x2kbr0"

# In a network namespace of its own: a bridge, and behind it a neighbour that knows the address elsewhere.
NETWORK = f"""
set -e
ip link add {BRIDGE} type bridge
ip link add port type veth peer name neighbour
ip link set port master {BRIDGE}
for link in lo {BRIDGE} port; do ip link set $link up; done
ip address add 192.0.2.1/24 dev neighbour
ip link set neighbour up
ip neigh replace {ADDRESS} lladdr 00:16:3e:00:00:01 nud stale dev neighbour
"$0" -c 'from orchestrate.handover.announce import Announcement, send
send(Announcement("{ADDRESS}", "{MAC}", "{BRIDGE}"))' >&2
ip neigh show {ADDRESS} dev neighbour
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("arping"), reason="needs root and arping")
def test_a_neighbour_learns_where_the_address_is_now() -> None:
    command = ["unshare", "--net", "sh", "-c", NETWORK, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"lladdr {MAC}" in done.stdout


# The same, but the neighbour is the guest; the bridge has an address of its own or none.
ASKING = f"""
set -e
ip link add {BRIDGE} type bridge
ip link add port type veth peer name guest address {MAC}
ip link set port master {BRIDGE}
for link in lo {BRIDGE} port; do ip link set $link up; done
[ -z "$1" ] || ip address add "$1" dev {BRIDGE}
ip netns add x2k-$$
trap "ip netns delete x2k-$$" EXIT
ip link set guest netns x2k-$$
# It comes up with its address a moment after it is asked for.
(sleep 1.5; ip -n x2k-$$ address add {ADDRESS}/24 dev guest; ip -n x2k-$$ link set guest up) &
"$0" -c 'from orchestrate.handover.announce import Announcement, missing
asked = [Announcement("{ADDRESS}", "{MAC}", "{BRIDGE}"), Announcement("192.0.2.99", "{MAC}", "{BRIDGE}")]
print(*missing(asked, 5), sep="\\n")
print(*missing([Announcement("{ADDRESS}", "00:16:3e:00:00:09", "{BRIDGE}")], 5))'
"""


@pytest.mark.parametrize("own_address", ["192.0.2.1/24", ""])
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("arping"), reason="needs root and arping")
def test_addresses_are_waited_for_and_those_that_are_missing_or_somebody_else_s_are_told(own_address) -> None:
    command = ["unshare", "--net", "--mount", "sh", "-c", ASKING, sys.executable, own_address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    absent, others = done.stdout.splitlines()
    assert absent.startswith(f"192.0.2.99 does not answer on {BRIDGE} after 5 s")
    assert others == f"{ADDRESS} is answered by {MAC} on {BRIDGE}, not by the guest's 00:16:3e:00:00:09"


def test_what_cannot_be_asked_is_told_and_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "BESIDES", ())
    (line,) = missing([Announcement(ADDRESS, MAC, BRIDGE)], 5)
    assert "apt-get install arping" in line
    assert missing([], 5) == ()


@pytest.mark.skipif(not shutil.which("arping"), reason="needs arping")
def test_a_bridge_that_is_not_there_fails_by_name() -> None:
    with pytest.raises(Failed, match="on nosuchbr: "):
        send(Announcement(ADDRESS, MAC, "nosuchbr"))


def test_without_arping_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "BESIDES", ())
    with pytest.raises(Failed, match="apt-get install arping"):
        send(Announcement(ADDRESS, MAC, BRIDGE))


def test_only_addresses_with_a_bridge_are_announced_and_only_ipv4() -> None:
    nics = [
        Nic(mac=MAC, bridge=BRIDGE, addresses=("192.0.2.7/24", "2001:db8::7/64", "198.51.100.7")),
        Nic(mac="00:16:3e:12:34:57", addresses=("192.0.2.8",)),
    ]
    assert list(announcements(nics)) == [
        Announcement("192.0.2.7", MAC, BRIDGE),
        Announcement("198.51.100.7", MAC, BRIDGE),
    ]


def test_an_address_that_is_none_is_no_plan() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Nic(mac=MAC, addresses=("192.0.2.999",))
