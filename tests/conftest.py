"""What tests all over the tree share."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("xen2kvm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("xen2kvm")

# A shell starts what runs in the background with Ctrl-C ignored; what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

SYSTEM_URI = "qemu:///system"
_DAEMONS = ("virtlogd", "libvirtd")


def pytest_itemcollected(item: pytest.Item) -> None:
    """A machine has one libvirt: its tests are marked, so that they can follow each other."""
    if {"libvirt_uri", "virsh"} & set(getattr(item, "fixturenames", ())):
        item.add_marker("libvirt")


def _answers() -> bool:
    command = ["virsh", "-q", "-c", SYSTEM_URI, "uri"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="session")
def libvirt_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A libvirt daemon that answers: the one that runs, or one that ends with the tests."""
    missing = [tool for tool in ("virsh", *_DAEMONS) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if _answers():
        yield SYSTEM_URI
        return
    folder = tmp_path_factory.mktemp("libvirt")
    started = [_started(daemon, folder) for daemon in _DAEMONS]
    try:
        deadline = time.monotonic() + 30
        while not _answers():
            assert time.monotonic() < deadline, "\n".join(log.read_text() for log in folder.iterdir())
            time.sleep(0.2)
        yield SYSTEM_URI
    finally:
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(30)


def _started(daemon: str, folder: Path) -> subprocess.Popen[bytes]:
    # With /dev/kvm out of sight (a device in its place that libvirt's QEMU may not open): where it opens but
    # does not work, libvirt looks at every emulator for each call anew, most of a minute at a time.
    hidden = '[ ! -e /dev/kvm ] || { mknod -m 600 "$1.kvm" c 1 7 && mount --bind "$1.kvm" /dev/kvm; }'
    script = f'{hidden}; exec "$0" --pid-file "$1"'
    # What another test unmounts meanwhile must go from here as well, or its loop device stays busy.
    apart = ["unshare", "--mount", "--propagation", "slave"]
    command = [*apart, "sh", "-c", script, daemon, str(folder / f"{daemon}.pid")]
    with (folder / f"{daemon}.log").open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


@pytest.fixture
def loop() -> Iterator[Callable[..., Path]]:
    """Attach a file to a loop device: `loop(path, "--sector-size", 4096)`; all are detached at the end."""
    attached: list[Path] = []

    def attach(path: Path, *options: object) -> Path:
        device = _attached("--find", "--show", *options, path)
        attached.append(device)
        return device

    yield attach
    for device in attached:
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)


def _attached(*words: object) -> Path:
    argv = ["losetup", *(str(word) for word in words)]
    return Path(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip())
