"""A bridge of this host that leads nowhere, for a copy of a guest that still serves elsewhere.

The copy has the guest's own addresses: on a bridge with a way out it would answer in the guest's place. A
port counts as a way out unless it is a tap, which is another virtual machine's.
"""

import re
import time
from pathlib import Path

from blocksync.errors import Failed, Refused, Usage
from blocksync.hosts import programs

_INTERFACES = Path("/sys/class/net")
# <linux/if.h>: IFNAMSIZ with its zero.
_NAME = re.compile(r"[^/\s]{1,15}")
_SECONDS = 10.0
_GLANCE = 0.02


def require_isolated(name: str) -> None:
    """Raises `Usage` unless this host has a bridge of that name, `Refused` (guard `not-isolated`) if it leads
    anywhere.
    """
    folder = _INTERFACES / name
    if not _NAME.fullmatch(name) or not (folder / "bridge").is_dir():
        raise Usage(
            f"bridge {name}",
            "is not on this host",
            f"make one that leads nowhere: ip link add {name} type bridge; ip link set {name} up",
        )
    for port in sorted(each.name for each in (folder / "brif").iterdir()):
        if not (_INTERFACES / port / "tun_flags").exists():
            raise Refused(
                f"bridge {name}",
                f"has the port {port}: the copy would answer in the place of the guest that still runs",
                "rehearse on a bridge without ways out, or with --network cut",
                guard="not-isolated",
            )


def plug_in(card: str, name: str) -> None:
    """Put a tap that QEMU is about to make on the bridge, which it leaves when QEMU ends. Raises `Failed`."""
    deadline = time.monotonic() + _SECONDS
    while not (_INTERFACES / card).exists():
        if time.monotonic() > deadline:
            raise Failed(f"network card {card}", "was not made by QEMU", "see its words in the console's log")
        time.sleep(_GLANCE)
    argv = [programs.find("ip"), "link", "set", "dev", card, "master", name, "up"]
    done = programs.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"network card {card}", done.stderr.strip(), f"see whether {name} takes ports: ip link")
