"""Control connections of a real ssh, asked by OpenSSH's own protocol."""

import socket
import threading
from pathlib import Path

from sshd import Server

from blocksync.transports import control_socket
from blocksync.transports.openssh import OpenSSH
from patience import wait_for


def test_a_control_connection_that_runs_answers_and_ends(server: Server, tmp_path: Path) -> None:
    transport = OpenSSH(server.host, server.config)
    transport.run(("true",)).close()
    assert transport._folder is not None
    path = transport._folder.socket
    assert control_socket.is_alive(path)
    control_socket.end(path)
    wait_for(lambda: not control_socket.is_alive(path))
    transport.close()


def test_where_nobody_or_nonsense_answers_there_is_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "control"
    assert not control_socket.is_alive(path)
    control_socket.end(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert not control_socket.is_alive(path)
        listener.listen()

        def talk_nonsense() -> None:
            for _ in range(2):
                with listener.accept()[0] as near:
                    near.sendall(b"SSH-2.0-something else altogether")

        talker = threading.Thread(target=talk_nonsense)
        talker.start()
        assert not control_socket.is_alive(path)
        control_socket.end(path)
        talker.join()
