"""Checks against real sockets, servers and commands."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bounded
from orchestrate.handover.checks import wait_for
from orchestrate.plan.model import Check


class Handler(http.server.BaseHTTPRequestHandler):
    """Unavailable the first time, as a service that is still starting."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(503 if type(self).asked == 1 or self.path == "/never" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join()


def test_a_page_is_asked_for_until_it_answers_with_success(server: str) -> None:
    before = time.time()
    result = wait_for(Check(url=server, timeout=10))
    assert result.passed is not None
    assert before <= result.passed <= time.time()
    assert Handler.asked == 2


def test_a_page_that_never_comes_up_fails_with_its_status(server: str) -> None:
    result = wait_for(Check(url=f"{server}/never", timeout=2))
    assert result.passed is None
    assert result.cause.startswith("answers 503")


def test_a_proxy_cannot_answer_for_the_guest(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)
    assert wait_for(Check(url="http://127.0.0.1:1/", timeout=0.3)).passed is None


def test_a_port_is_tried_until_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        timer = threading.Timer(0.6, listener.listen)
        timer.start()
        result = wait_for(Check(tcp=f"127.0.0.1:{port}", timeout=10))
        timer.join()
    assert result.passed is not None


def test_a_closed_port_says_so() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        result = wait_for(Check(tcp=f"127.0.0.1:{bound.getsockname()[1]}", timeout=0.3))
    assert (result.passed, result.cause) == (None, "Connection refused (tried for 0.3 s)")


def test_a_server_that_speaks_something_else_is_not_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def banner() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                connection.close()

        threading.Thread(target=banner, daemon=True).start()
        result = wait_for(Check(url=f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.3))
    assert result.passed is None


def test_a_command_is_run_again_until_it_ends_well(tmp_path: Path) -> None:
    script = f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; echo not yet >&2; exit 7; }}"
    assert wait_for(Check(command=("sh", "-c", script), timeout=10)).passed is not None
    failing = wait_for(Check(command=("sh", "-c", "echo no such page >&2; exit 7"), timeout=0.1))
    assert failing.cause == "status 7 no such page (tried for 0.1 s)"


def test_a_command_that_hangs_or_is_missing_does_not_pass() -> None:
    assert "did not end" in wait_for(Check(command=("sleep", "60"), timeout=0.2)).cause
    assert "No such file" in wait_for(Check(command=("/no/such/program",), timeout=0.1)).cause


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tcp": "web1:80", "url": "http://web1/"},
        {"tcp": "web1"},
        {"tcp": "web1:99999"},
        {"url": "file:///etc/passwd"},
        {"url": "http:// /"},
        {"tcp": "web1:80", "timeout": 0},
    ],
)
def test_a_check_that_cannot_be_made_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="check"):
        Check(**fields)  # type: ignore[arg-type]


def test_a_command_that_prints_without_an_end_takes_no_memory() -> None:
    script = """
from orchestrate.handover.checks import wait_for
from orchestrate.plan.model import Check
print(wait_for(Check(command=("cat", "/dev/zero"), timeout=0.1)).cause)
"""
    assert "cat" not in (said := bounded.run(script)) and ("printed more" in said or "did not end" in said)


def test_what_a_command_says_is_one_line_without_control_characters() -> None:
    said = r"printf 'a\033]0;PWNED\007\377\nb\342\200\256\n' >&2; exit 1"
    assert wait_for(Check(command=("sh", "-c", said), timeout=0.1)).cause.startswith("status 1 a?]0;PWNED?")
    assert wait_for(Check(command=("sh", "-c", said), timeout=0.1)).cause.isprintable()


def test_a_server_that_drips_does_not_keep_a_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()
        threading.Thread(target=drip, args=(listening, ended), daemon=True).start()
        began = time.monotonic()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        cause = wait_for(Check(url=url, timeout=0.3)).cause
        ended.set()
    assert "did not answer within" in cause
    assert time.monotonic() - began < 5


def drip(listening: socket.socket, ended: threading.Event) -> None:
    accepted, _ = listening.accept()
    with accepted:
        while not ended.wait(0.05):
            accepted.send(b"H")
