"""A Channel over a child process: its pipes, its standard error drained, its end."""

import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Mapping, Sequence
from io import FileIO
from signal import SIGKILL, SIGTERM
from typing import IO, cast

TAIL_BYTES = 64 << 10
# How long a process may take to end by itself once its streams are closed, and after SIGTERM.
_GRACE_SECONDS = 2.0


class Tail:
    """The last bytes of a stream, which a thread reads until its end: a full pipe stops its writer."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="stderr", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with self._stream:
            while piece := os.read(self._stream.fileno(), TAIL_BYTES):
                with self._lock:
                    self._kept += piece
                    del self._kept[:-TAIL_BYTES]

    def text(self, seconds: float = 0.0) -> str:
        """What was kept, after waiting `seconds` at most for the stream to end."""
        self._thread.join(seconds)
        with self._lock:
            return self._kept.decode(errors="replace")


class ChildChannel:
    """`argv` as a child process. Raises OSError when it cannot be started.

    The child is in a session of its own: Ctrl-C on the terminal asks a pass to stop at a safe point, and it
    needs its streams to get there.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            list(argv),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
        self.stdin = cast(FileIO, self._process.stdin)
        self.stdout = cast(FileIO, self._process.stdout)
        self._tail = Tail(cast(IO[bytes], self._process.stderr))

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        self._end()

    def _end(self) -> None:
        for signal in (None, SIGTERM, SIGKILL):
            if signal is not None:
                self._process.send_signal(signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                ended(self._process, _GRACE_SECONDS)
                return

    def end_all(self) -> None:
        """End the command with all that it started: politely, for some of it has to put things back, and then
        at once. For a command that was not waited for yet. Never raises.
        """
        for signal in (SIGTERM, SIGKILL):
            # Until it is waited for, its number names nobody else's group.
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal)
                _exits_within(self._process.pid, _GRACE_SECONDS)

    def wait(self, timeout: float | None) -> int:
        try:
            status = self._process.wait() if timeout is None else ended(self._process, timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"process {self._process.pid} still runs after {timeout} s") from error
        return status if status >= 0 else 128 - status

    def stderr_tail(self) -> str:
        # A child that has ended may have left words that the thread has not read yet.
        return self._tail.text(0.5 if self._process.poll() is not None else 0.0)


def _exits_within(pid: int, seconds: float) -> None:
    """Wait for the end of a child, and leave it to be waited for."""
    with contextlib.suppress(OSError), FileIO(os.pidfd_open(pid)) as descriptor:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit status of a process, at once when it ends: with a limit, Popen.wait looks every 50 ms.

    Raises subprocess.TimeoutExpired.
    """
    # Linux before 5.3 has no such descriptors.
    with contextlib.suppress(OSError), FileIO(os.pidfd_open(process.pid)) as descriptor:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if poll.poll(seconds * 1000):
            # Without a limit: with one, Popen gives up where another thread is just asking for the status.
            return process.wait()
        seconds = 0.0
    return process.wait(seconds)
