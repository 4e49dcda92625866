"""The far half of TLS beside ssh: `blocksync relay -- ARGV`, run over ssh, gives ARGV streams of its own.

Standard input and output carry the rendezvous. When the streams come, ARGV is started on pipes and bytes are
moved until it ends; when they do not, ARGV takes this process's place and ssh carries its bytes. Either way
its standard error and its exit status are those that ssh passes on.
"""

import contextlib
import ipaddress
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from blocksync.errors import Failed, Usage
from blocksync.transports.certificates import make_identity
from blocksync.transports.child import widen
from blocksync.transports.rendezvous import Answer, Choice, Offer, Verdict, hear, say
from blocksync.transports.streams import Listener, Streams
from blocksync.transports.stripes import Gather, Scatter

OFFER_SECONDS = 15.0
# The near end tries its port for less.
CHOICE_SECONDS = 15.0
_ARRIVAL_SECONDS = 2.0
_GRACE_SECONDS = 2.0
_STDIN, _STDOUT = 0, 1
_NOT_FOUND = 127


def main(argv: Sequence[str]) -> int:
    """Run `argv` with the streams agreed on; its exit status, 128+n for signal n.

    Raises Usage without an argv and Failed when the near end makes no sense.
    """
    if not argv:
        raise Usage("blocksync relay", "no command after --", "this command is for blocksync itself")
    streams = _meet(os.environ.get("SSH_CONNECTION", ""))
    if streams is None:
        return _replace(argv)
    return _relay(argv, streams)


def _meet(connection: str) -> Streams | None:
    offer = hear(_STDIN, Offer, OFFER_SECONDS)
    identity = make_identity()
    address = _own_address(connection)
    try:
        listener = Listener(address, offer.port, identity, offer.certificate, offer.streams)
    except OSError as error:
        raise Failed(f"{address}:{offer.port}", f"cannot listen: {error.strerror}") from error
    say(_STDOUT, Answer(identity.certificate, listener.port))
    wanted = hear(_STDIN, Choice, CHOICE_SECONDS).tls
    streams = listener.streams(_ARRIVAL_SECONDS if wanted else 0.0)
    if streams is not None and not wanted:
        streams.close()
        streams = None
    say(_STDOUT, Verdict(streams is not None))
    return streams


def _own_address(connection: str) -> str:
    """The address of this host at which the ssh connection came in (sshd(8), SSH_CONNECTION): no other one
    is listened on."""
    try:
        return str(ipaddress.ip_address(connection.split()[2]))
    except (IndexError, ValueError) as error:
        raise Failed("SSH_CONNECTION", f"{connection!r} names no address of this host") from error


def _replace(argv: Sequence[str]) -> int:
    # Python ignores it, and what is ignored stays ignored in the program that takes over.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(argv[0], list(argv))
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND


def _relay(argv: Sequence[str], streams: Streams) -> int:
    stdin, to_child = os.pipe()
    from_child, stdout = os.pipe()
    child = _start(argv, stdin, stdout)
    up, down = Gather(to_child, streams.up), Scatter(from_child, streams.down)
    up.start()
    down.start()
    if child is not None:
        threading.Thread(target=_end_with_ssh, args=(child, up, down), daemon=True).start()
    down.join()
    status = _NOT_FOUND if child is None else child.wait()
    return status if status >= 0 else 128 - status


def _start(argv: Sequence[str], stdin: int, stdout: int) -> subprocess.Popen[bytes] | None:
    """Start it on these ends of pipes, which are the child's alone then; None when it cannot be started."""
    widen(stdin)
    widen(stdout)
    try:
        return subprocess.Popen(list(argv), stdin=stdin, stdout=stdout)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        return None
    finally:
        os.close(stdin)
        os.close(stdout)


def _end_with_ssh(child: subprocess.Popen[bytes], up: Gather, down: Scatter) -> None:
    """The near end says nothing more on standard input; when that ends, it is gone."""
    with contextlib.suppress(OSError):
        while os.read(_STDIN, 4096):
            pass
    up.cut()
    down.cut()
    # The child sees its input end, and may have something to put in order.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE_SECONDS)
        return
    child.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :]))
