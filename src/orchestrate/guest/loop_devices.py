"""Loop devices that go by themselves, and when they are gone."""

import time
from collections.abc import Iterable
from pathlib import Path

from blocksync.errors import Failed

_PATIENCE = 10.0  # seconds for a device that a scan holds open
_POLL_SECONDS = 0.02


def holds(device: str | Path, raw: Path) -> bool:
    """Whether a device is a loop device on the file `raw`."""
    try:
        backing = Path("/sys/block", Path(device).name, "loop/backing_file").read_text()
    except OSError:
        return False
    return backing.rstrip("\n") == str(raw.resolve())


def wait_for_detach(devices: Iterable[str | Path], raw: Path) -> None:
    """Wait until none of `devices` holds the file `raw`: autoclear detaches at the last close, which a
    scan of new devices may put off for a moment. Raises `Failed` after ten seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    for device in devices:
        while holds(device, raw):
            if time.monotonic() > deadline:
                raise Failed(
                    device,
                    f"it still holds {raw}",
                    f"end what uses it (fuser -v {device}), then run `losetup -d {device}`",
                )
            time.sleep(_POLL_SECONDS)
