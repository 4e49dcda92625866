"""One carrier over several streams, through real TLS on loopback: whole and in order, or known to be cut."""

import os
import socket
import ssl
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksync.errors import Failed
from blocksync.transports.certificates import make_identity
from blocksync.transports.streams import Listener, Streams, connect
from blocksync.transports.stripes import STRIPE, Stripes

NEAR, FAR = make_identity(), make_identity()


def meet(each_way: int) -> tuple[Streams, Streams]:
    listener = Listener("127.0.0.1", 0, FAR, NEAR.certificate, each_way)
    where = ("127.0.0.1", listener.port)
    near = connect(where, NEAR, FAR.certificate, each_way=each_way, seconds=3)
    far = listener.streams(3)
    assert far is not None
    return near, far


def send(carrier: Stripes, *pieces: bytes) -> None:
    rest = [memoryview(piece) for piece in pieces]
    while rest:
        count = carrier.drain(rest, 1000)
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][count:]


def receive(carrier: Stripes, size: int) -> bytes:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count, ended = carrier.fill([rest], 1000)
        assert count or not ended
        rest = rest[count:]
    return bytes(data)


@settings(max_examples=25, deadline=None)
@given(
    each_way=st.integers(1, 4),
    sizes=st.lists(st.integers(0, 700_000), max_size=6),
    reads=st.lists(st.integers(1, 400_000), min_size=1, max_size=4),
)
def test_bytes_arrive_whole_and_in_order_both_ways_at_once(each_way, sizes, reads):
    near, far = meet(each_way)
    ends = Stripes.of_near(near), Stripes.of_far(far)
    sent = [os.urandom(size) for size in sizes]
    senders = [threading.Thread(target=send, args=(end, *sent)) for end in ends]
    for sender in senders:
        sender.start()
    whole = b"".join(sent)
    for end in ends:
        at, received = 0, b""
        while at < len(whole):
            size = min(reads[at % len(reads)], len(whole) - at)
            received += receive(end, size)
            at += size
        assert received == whole
    for sender in senders:
        sender.join()
    near.close()
    far.close()


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_stream_that_is_cut_is_the_end_of_what_comes(cut):
    near, far = meet(3)
    ours, theirs = Stripes.of_near(near), Stripes.of_far(far)
    whole = 2 * 3 * STRIPE
    sender = threading.Thread(target=send, args=(ours, bytes(whole)))
    sender.start()
    receive(theirs, whole)
    sender.join()
    socket.socket.shutdown(near.up[cut], socket.SHUT_RDWR)
    for number in range(cut):
        # What the other streams carry before it is still whole.
        send(ours, bytes([number]) * STRIPE)
        assert receive(theirs, STRIPE) == bytes([number]) * STRIPE
    assert theirs.fill([memoryview(bytearray(1))], 3000) == (0, True)
    with pytest.raises(OSError):
        for _ in range(100):
            ours.drain([memoryview(bytes(STRIPE))], 100)
    near.close()
    far.close()


def test_nothing_that_comes_and_nobody_who_reads_take_no_longer_than_was_allowed():
    near, far = meet(2)
    ours, theirs = Stripes.of_near(near), Stripes.of_far(far)
    before = time.monotonic()
    assert theirs.fill([memoryview(bytearray(10))], 200) == (0, False)
    assert 0.15 < time.monotonic() - before < 2
    sent = 0
    data = memoryview(bytes(64 << 20))
    while count := ours.drain([data[sent:]], 100):
        sent += count
    assert sent < len(data)
    # What was offered when it was full arrives once, and whole.
    rest = threading.Thread(target=send, args=(ours, bytes(data[sent:])))
    rest.start()
    assert receive(theirs, len(data)) == data
    rest.join()
    near.close()
    far.close()


def test_streams_are_tls_1_3_with_aes_gcm():
    near, far = meet(1)
    for stream in (*near.up, *near.down, *far.up, *far.down):
        assert stream.version() == "TLSv1.3"
        assert "AES" in stream.cipher()[0] and "GCM" in stream.cipher()[0]


def test_the_near_end_refuses_another_certificate():
    stranger = make_identity()
    listener = Listener("127.0.0.1", 0, stranger, NEAR.certificate, 1)
    with pytest.raises((ssl.SSLError, Failed)):
        connect(("127.0.0.1", listener.port), NEAR, FAR.certificate, each_way=1, seconds=3)
    assert listener.streams(0.5) is None


def test_strangers_at_the_port_get_nothing_and_stop_nobody():
    listener = Listener("127.0.0.1", 0, FAR, NEAR.certificate, 2)
    where = ("127.0.0.1", listener.port)
    silent = [socket.create_connection(where) for _ in range(3)]
    # TLS 1.3 lets a client learn that it is refused only when it reads.
    impostor = make_identity().connect(socket.create_connection(where), FAR.certificate)
    with pytest.raises(ssl.SSLError):
        impostor.recv(1)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        anonymous.wrap_socket(socket.create_connection(where)).recv(1)
    near = connect(where, NEAR, FAR.certificate, each_way=2, seconds=3)
    far = listener.streams(3)
    assert far is not None
    near.up[1].sendall(b"x")
    assert far.up[1].recv(1) == b"x"
    for stream in silent:
        stream.close()


def test_the_port_is_closed_once_the_streams_have_come():
    listener = Listener("127.0.0.1", 0, FAR, NEAR.certificate, 1)
    connect(("127.0.0.1", listener.port), NEAR, FAR.certificate, each_way=1, seconds=3)
    assert listener.streams(3) is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.port), 1)
