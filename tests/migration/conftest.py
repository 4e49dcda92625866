"""Real guests for the tests that boot."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from xen_guest import Recipe, XenGuest, build

from orchestrate.kvm.accel import choose

GUESTS = Path(__file__).parents[2] / ".cache" / "guests"


@pytest.fixture
def make_guest(tmp_path: Path) -> Callable[[Recipe], XenGuest]:
    """A function that makes the volumes and the Xen configuration of a guest."""
    return lambda recipe: build(tmp_path / "xen", GUESTS, recipe, name="web1")


def pytest_configure(config: pytest.Config) -> None:
    # Asked once here: where KVM only seems to work, each command would wait for the probe again.
    os.environ["XEN2KVM_ACCEL"] = choose()
