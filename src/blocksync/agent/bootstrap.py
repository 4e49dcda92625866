"""How the far end is started: as `blocksync agent` where that is installed, else as the portable agent.

That is sent over the channel, to a loader that any Python understands, and runs from memory.
"""

import shlex
import struct
import zlib

from blocksync.wire.frames import LOADER_GREETING

# The first that exists runs; each name on its own would do on most hosts.
PYTHONS = ("python3", "python2.7", "python2.6", "python2", "python", "/usr/libexec/platform-python")
# What a login without a terminal may lack of root's own PATH.
MORE_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
# The status of a shell that finds no command.
NOTHING_THERE = 127

# One line, for any Python from 2.6 on: greet, take in the program, run it. With -c the folder that the login
# leads to comes first on Python's path: a file there must not be taken for a module of Python's own.
LOADER = (
    "import sys;sys.path[:]=[p for p in sys.path if p.startswith('/')];"
    "import os,struct,zlib;"
    "r=lambda n,b=b'':b if len(b)==n else r(n,b+(os.read(0,n-len(b)) or os._exit(1)));"
    f"os.write(1,{LOADER_GREETING!r});"
    "exec(zlib.decompress(r(*struct.unpack('>I',r(4)))),{'__name__':'__main__'})"
)


def argv() -> tuple[str, ...]:
    """The command that starts the far end."""
    search = " ".join(shlex.quote(python) for python in PYTHONS)
    script = (
        f"PATH=$PATH:{MORE_PATH}; export PATH; "
        "command -v blocksync >/dev/null 2>&1 && exec blocksync agent; "
        f"for p in {search}; do command -v $p >/dev/null 2>&1 || continue; "
        f"exec $p -E -s -c {shlex.quote(LOADER)}; done; "
        f"exit {NOTHING_THERE}"
    )
    return "/bin/sh", "-c", script


def program() -> bytes:
    """The portable agent as its loader takes it: the length of what follows, and the program, compressed."""
    # Slow to load, and most far ends need no program.
    from importlib.resources import files  # noqa: PLC0415

    packed = zlib.compress(files("blocksync.agent").joinpath("portable_agent.py").read_bytes(), 9)
    return struct.pack(">I", len(packed)) + packed
