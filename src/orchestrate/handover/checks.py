"""The plan's checks: whether the guest serves. Each is tried again until it passes or its time is over."""

import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from blocksync.errors import Failed
from blocksync.foreign import shown, shown_lines
from blocksync.hosts import programs
from blocksync.hosts.host import MISSING, here
from orchestrate.plan.model import Check

_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.25
# The guest itself has to answer, no proxy in its name.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Result:
    """A check's end: `passed` is when (seconds since 1970), None if it never did; `cause` why it did not."""

    name: str
    passed: float | None
    cause: str


def wait_for(check: Check) -> Result:
    """Try until it passes or `check.timeout` seconds are over."""
    deadline = time.monotonic() + check.timeout
    said = ""
    while True:
        cause = _attempt(check, min(_ATTEMPT_SECONDS, max(0.1, deadline - time.monotonic())))
        if cause is None:
            return Result(check.title, time.time(), "")
        if time.monotonic() >= deadline:
            # The last attempt has little time: the one before it knew more.
            return Result(check.title, None, f"{said or cause} (tried for {check.timeout:g} s)")
        said = cause
        time.sleep(_PAUSE_SECONDS)


def _attempt(check: Check, seconds: float) -> str | None:
    """None if it passed, else why not."""
    if check.command:
        return _command(check.command, seconds)
    return _tcp(check.tcp, seconds) if check.tcp else _http(check.url, seconds)


def _command(argv: tuple[str, ...], seconds: float) -> str | None:
    try:
        done = here(argv, seconds=seconds, environment=programs.environment())
    except Failed as error:
        return error.cause
    if done.status == MISSING and not done.output:
        return done.complaint
    said = [done.complaint] if done.complaint else shown_lines(done.output.decode(errors="replace"), 1)
    return " ".join([f"status {done.status}", *said]) if done.status else None


def _tcp(place: str, seconds: float) -> str | None:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _http(url: str, seconds: float) -> str | None:
    """As `_answered`, within `seconds` as a whole: each single byte of an answer may take its time."""
    told: list[str | None] = []
    asking = threading.Thread(target=lambda: told.append(_answered(url, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return told[0] if told else f"did not answer within {seconds:.1f} s"


def _answered(url: str, seconds: float) -> str | None:
    try:
        # The plan's scheme is checked when it is read: http or https.
        with _DIRECT.open(url, timeout=seconds):
            return None
    except urllib.error.HTTPError as error:
        return f"answers {error.code}"
    except urllib.error.URLError as error:
        return shown(str(error.reason))
    except OSError as error:
        return error.strerror or str(error)
    except http.client.HTTPException as error:
        return f"does not speak HTTP: {shown(str(error))}"
