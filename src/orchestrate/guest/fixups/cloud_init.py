"""cloud-init's network configuration.

Source: cloud-init's documentation of network configuration, "Disabling network configuration".
"""

from orchestrate.guest.facts import Facts
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.reading import Reading

NAME = "cloud-init"
REASON = (
    "cloud-init keeps its hands off the network, because without a data source it would write DHCP over it"
)

_FOLDER = "/etc/cloud/cloud.cfg.d"
_PATH = f"{_FOLDER}/99-xen2kvm-network.cfg"
_CONTENT = b"network: {config: disabled}\n"


def edits(guest: Reading, facts: Facts) -> tuple[Edit, ...]:
    """A file of its own where cloud-init is configured."""
    if not guest.names(_FOLDER) or guest.read(_PATH) == _CONTENT:
        return ()
    return (Edit(_PATH, _CONTENT, REASON),)
