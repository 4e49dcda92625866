"""One stream over several, through real TLS on loopback: whole and in order, or known to be cut."""

import os
import socket
import ssl
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksync.errors import Failed
from blocksync.transports.certificates import make_identity
from blocksync.transports.streams import Listener, connect
from blocksync.transports.stripes import Gather, Scatter

NEAR, FAR = make_identity(), make_identity()


def meet(each_way: int):
    listener = Listener("127.0.0.1", 0, FAR, NEAR.certificate, each_way)
    where = ("127.0.0.1", listener.port)
    near = connect(where, NEAR, FAR.certificate, each_way=each_way, seconds=3)
    far = listener.streams(3)
    assert far is not None
    return near, far


def read_all(descriptor: int) -> bytes:
    received = bytearray()
    while piece := os.read(descriptor, 1 << 20):
        received += piece
    return bytes(received)


@settings(max_examples=25, deadline=None)
@given(
    each_way=st.integers(1, 4),
    sizes=st.lists(st.integers(0, 700_000), max_size=6),
    seed=st.binary(max_size=8),
)
def test_bytes_arrive_whole_and_in_order(each_way, sizes, seed):
    near, far = meet(each_way)
    source, feed = os.pipe()
    drain, sink = os.pipe()
    scatter, gather = Scatter(source, near.up), Gather(sink, far.up)
    scatter.start()
    gather.start()
    sent = [(seed + bytes([number, 1, 2, 3])) * size for number, size in enumerate(sizes)]

    def write() -> None:
        for piece in sent:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(feed, rest) :]
        os.close(feed)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_all(drain) == b"".join(sent)
    writer.join()
    scatter.join()
    gather.join()
    assert scatter.error is None and gather.error is None
    os.close(drain)
    near.close()
    far.close()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_is_cut_ends_the_output_and_is_known(number):
    near, far = meet(3)
    source, feed = os.pipe()
    drain, sink = os.pipe()
    scatter, gather = Scatter(source, near.up), Gather(sink, far.up)
    scatter.start()
    gather.start()
    os.write(feed, b"before")
    assert os.read(drain, 100) == b"before"
    socket.socket.shutdown(near.up[number], socket.SHUT_RDWR)
    assert read_all(drain) == b""
    gather.join(5)
    assert isinstance(gather.error, OSError)
    os.close(feed)
    os.close(drain)


def test_a_reader_that_has_seen_enough_does_not_stall_the_writer():
    near, far = meet(2)
    source, feed = os.pipe()
    drain, sink = os.pipe()
    scatter, gather = Scatter(source, near.up), Gather(sink, far.up)
    scatter.start()
    gather.start()
    os.close(drain)
    for _ in range(64):
        os.write(feed, bytes(1 << 16))
    os.close(feed)
    scatter.join(5)
    gather.join(5)
    assert scatter.error is None and gather.error is None


def test_a_piece_that_is_announced_too_long_is_refused_before_it_is_read():
    near, far = meet(1)
    drain, sink = os.pipe()
    gather = Gather(sink, far.up)
    gather.start()
    near.up[0].sendall(struct.pack(">I", (256 << 10) + 1))
    assert read_all(drain) == b""
    gather.join(5)
    assert isinstance(gather.error, ValueError)


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
