"""`cutover --start` hands the guest to a real libvirt, which boots it with its own MAC on its own bridge."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xen_guest import MAC, Recipe, build

pytestmark = [pytest.mark.boots, pytest.mark.timeout(900)]

CACHE = Path(__file__).parents[2] / ".cache" / "guests"
XEN2KVM = Path(sys.executable).parent / "xen2kvm"
NAME, BRIDGE = "xen2kvm-test", "xenbr0"
NOT_REHEARSED = "--override=not-rehearsed"


@pytest.fixture
def bridge() -> Iterator[None]:
    """The bridge that the Xen configuration names."""
    made = not Path(f"/sys/class/net/{BRIDGE}").exists()
    if made:
        subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    yield
    if made:
        subprocess.run(["ip", "link", "del", BRIDGE], check=True)


@pytest.fixture
def images() -> Iterator[Path]:
    """A folder that libvirt's QEMU may reach."""
    with tempfile.TemporaryDirectory(dir="/var/lib/libvirt/images") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def virsh(libvirt_uri: str) -> Iterator[list[str]]:
    command = ["virsh", "-q", "-c", libvirt_uri]
    yield command
    subprocess.run([*command, "destroy", NAME], capture_output=True, check=False)
    subprocess.run([*command, "undefine", NAME], capture_output=True, check=False)


@pytest.mark.usefixtures("bridge")
def test_cutover_with_start_defines_the_guest_and_it_comes_up_once(images: Path, virsh: list[str]) -> None:
    guest = build(images, CACHE, Recipe(), name=NAME)
    plan = images / "guest.toml"
    xen2kvm("plan", guest.config, f"--disk={images}/disk.raw", f"-o{plan}", *guest.volume_options)
    report = json.loads(
        xen2kvm("cutover", plan, f"--job-dir={images}/job", "--start", "--json", NOT_REHEARSED)
    )
    assert report["started"]
    assert output(*virsh, "domstate", NAME).strip() == "running"
    links = output(*virsh, "domiflist", NAME)
    assert MAC in links
    assert BRIDGE in links
    # The cutover itself waited for it.
    assert b"login:" in (images / "job/consoles/kvm.log").read_bytes()
    assert "console" in [step["name"] for step in report["steps"]]

    again = subprocess.run(
        [str(XEN2KVM), "cutover", str(plan), f"--job-dir={images}/job", "--start", "--again", "--yes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 3
    assert "is running" in again.stderr


def xen2kvm(*argv: object) -> str:
    return output(str(XEN2KVM), *(str(argument) for argument in argv))


def output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
