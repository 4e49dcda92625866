"""The Xen host that the lab's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kvm_side import KvmSide, kvm_side
from xen_host import XenLab, is_built, running, xen_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XenLab]:
    """A Xen host with its guest running and the witness writing, as the build left them."""
    if not is_built():
        pytest.skip("the lab is not built: make lab")
    # Not pytest's own long path: a socket's path has 108 bytes.
    with xen_lab(tmp_path_factory.mktemp("lab"), running()) as machine:
        yield machine


@pytest.fixture
def side(lab: XenLab, libvirt_uri: str) -> Iterator[KvmSide]:
    """A KVM host; the guest runs on Xen before the test."""
    assert lab.guest_runs()
    with kvm_side(lab, libvirt_uri) as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "lab" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.boots)
            item.add_marker(pytest.mark.long)
