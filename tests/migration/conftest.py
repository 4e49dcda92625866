"""Real guests for the tests that boot."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from xen_guest import Recipe, XenGuest, build

CACHE = Path(__file__).parents[2] / ".cache" / "guests"


@pytest.fixture
def make_guest(tmp_path: Path) -> Callable[[Recipe], XenGuest]:
    """A function that makes the volumes and the Xen configuration of a guest."""
    return lambda recipe: build(tmp_path / "xen", CACHE, recipe, name="web1")


def pytest_configure(config: pytest.Config) -> None:
    # Where /dev/kvm hangs, asking for it would cost each boot its time limit.
    os.environ.setdefault("XEN2KVM_ACCEL", "tcg")
