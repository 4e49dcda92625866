"""Programs of this host's that read what a guest wrote, as root: how much they may take.

They need to open a volume and to print; a file system that was made to break them gets no more.
"""

from collections.abc import Sequence

from blocksync.hosts.host import MOST_BYTES, Completed, Host, ThisHost

_MEMORY = 2 << 30
_SECONDS = 170  # of computing; whoever waits gives up after 180
_PREFIX = (
    *("prlimit", f"--as={_MEMORY}", f"--cpu={_SECONDS}", "--fsize=0", "--core=0", "--"),
    *("setpriv", "--no-new-privs", "--"),
)


def limited(host: Host) -> Host:
    """`host`, if it is this one, with limits on all that it runs: bytes and seconds, no file written, no
    other user become. Another host may lack the programs for that.
    """
    return _Limited() if type(host) is ThisHost else host


class _Limited(ThisHost):
    def run(self, argv: Sequence[str], *, most: int = MOST_BYTES) -> Completed:
        """As `Host.run`."""
        return super().run([*_PREFIX, *argv], most=most)
