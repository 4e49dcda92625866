"""The move of a conversation from ssh's streams to TLS streams beside them.

    near  OFFER      my certificate, so many streams each way, and a port if only one is open
    far   ANSWER     my certificate and the port where I listen
    near  CONNECTED  whether all my streams are up
    far   ARRIVED    whether all of them came; if so, what I say from here on comes by them
    near  MOVED      what I say from here on, too

ssh's own check of the host decides who is trusted: the certificates are made for this conversation, and each
end learns the other's over ssh. Until the last word everything can go on as it was.
"""

import ipaddress
import os
from collections.abc import Callable

from blocksync.errors import Failed
from blocksync.foreign import shown
from blocksync.transports.certificates import Identity, make_identity
from blocksync.transports.streams import Listener, Streams, connect
from blocksync.transports.stripes import Stripes
from blocksync.wire.conversation import await_frame, expect, say, say_last
from blocksync.wire.frames import FrameKind
from blocksync.wire.link import Link
from blocksync.wire.messages import Arrived, Connected, Offer, OfferAnswer

_REACH_SECONDS = 3.0
_ARRIVAL_SECONDS = 2.0


class NoStreams(Exception):
    """Why there are no streams beside ssh; the conversation goes on as it was."""


Keep = Callable[[Streams], None]


def move_near(link: Link, address: str, keep: Keep, *, streams: int, port: int) -> None:
    """The near end: move to `streams` streams each way to `port` of `address`. `keep` is given them, to be
    closed at the end. Raises NoStreams when it stays on ssh, Lost, Violation.
    """
    identity = make_identity()
    say(link, Offer(certificate=identity.certificate, streams=streams, port=port))
    answer = expect(link, OfferAnswer)
    if answer.trouble:
        raise NoStreams(shown(answer.trouble))
    try:
        made = _connect((address, answer.port), identity, answer.certificate, streams)
    except NoStreams:
        say(link, Connected(all=False))
        raise
    keep(made)
    say(link, Connected(all=True))
    if not expect(link, Arrived).all:
        made.close()
        raise NoStreams("the streams did not arrive there")
    carrier = Stripes.of_near(made)
    link.receive_over(carrier)
    link.send_last(carrier, FrameKind.MOVED)


def _connect(where: tuple[str, int], identity: Identity, peer: bytes, streams: int) -> Streams:
    try:
        return connect(where, identity, peer, each_way=streams, seconds=_REACH_SECONDS)
    except (OSError, Failed) as error:
        why = error.cause if isinstance(error, Failed) else error
        raise NoStreams(f"{where[0]} port {where[1]}: {why}") from error


def move_far(link: Link, offer: Offer, keep: Keep) -> None:
    """The far end, which was made this offer. `keep` is given the streams, to be closed at the end. Raises
    Lost, Violation.
    """
    identity = make_identity()
    try:
        address = _own_address(os.environ.get("SSH_CONNECTION", ""))
        listener = Listener(address, offer.port, identity, offer.certificate, offer.streams)
    except (OSError, ValueError) as error:
        say(link, OfferAnswer(trouble=f"there: {error}"))
        return
    say(link, OfferAnswer(certificate=identity.certificate, port=listener.port))
    wanted = expect(link, Connected).all
    streams = listener.streams(_ARRIVAL_SECONDS if wanted else 0.0)
    if streams is not None:
        keep(streams)
    if not wanted:
        return
    if streams is None:
        say(link, Arrived(all=False))
        return
    carrier = Stripes.of_far(streams)
    say_last(link, Arrived(all=True), carrier)
    await_frame(link, FrameKind.MOVED)
    link.receive_over(carrier)


def _own_address(connection: str) -> str:
    """The address of this host at which the ssh connection came in (sshd(8), SSH_CONNECTION): no other one
    is listened on. Raises ValueError.
    """
    words = connection.split()
    if len(words) < 3:
        raise ValueError("SSH_CONNECTION names no address of this host")
    return str(ipaddress.ip_address(words[2]))
