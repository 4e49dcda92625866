"""QEMU's machine protocol, as much of it as the lab needs."""

import json
import socket
import time
from pathlib import Path
from types import TracebackType

NETWORK = "net"
"""What the machine's network is called on its command line."""


class Monitor:
    """A connection to the monitor of a machine that runs."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> dict[str, object]:
        """Send a command; what it returns."""
        message = json.dumps({"execute": command, "arguments": arguments})
        self._socket.sendall(message.encode() + b"\n")
        while answer := self._lines.readline():
            fields = json.loads(answer)
            if "error" in fields:
                raise RuntimeError(f"{command}: {fields['error']}")
            if "return" in fields:
                return fields["return"] if isinstance(fields["return"], dict) else {}
        raise RuntimeError(f"{command}: the machine is gone")

    def save_state(self, path: Path) -> None:
        """Halt the machine and write its memory and devices to a file; its disks stay as they are."""
        self.ask("stop")
        self.ask("migrate-set-parameters", **{"max-bandwidth": 2**33})
        self.ask("migrate", uri=f"exec:cat > '{path}'")
        while (status := self.ask("query-migrate")["status"]) != "completed":
            if status in {"failed", "cancelled"}:
                raise RuntimeError(f"the machine's state was not saved: {status}")
            time.sleep(0.2)

    def resume(self) -> None:
        """Let a machine go on whose state is being read."""
        while self.ask("query-status")["status"] == "inmigrate":
            time.sleep(0.1)
        self.ask("cont")

    def set_cable(self, *, plugged_in: bool) -> None:
        """Pull the network's cable or put it in: without it every packet is lost, and nobody is told."""
        self.ask("set_link", name=NETWORK, up=plugged_in)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
