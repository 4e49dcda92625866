"""Passes by the command itself between two network namespaces, over a link of 100 Mbit/s and 20 ms."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.passes.contenders import OURS
from benchmarks.remote import shaped_link, sshd
from benchmarks.remote.shaped_link import Shape

MIB = 2**20
SHAPE = Shape(rate=100 * 10**6, round_trip=0.020)
SIZE = 32 * MIB
BLOCK = 4096
# A busy machine is not what is tested: the bench says how close a quiet one comes to the whole link.
SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Site:
    """The near end's words, and a source at the other end."""

    near: tuple[str, ...]
    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    def sync(self, target: Path, *options: object) -> tuple[dict[str, Any], float]:
        """A pull with a digest file; its report, and the seconds of the whole process."""
        source, digests = f"ssh://{sshd.HOST}{self.source}", f"{target}.digests"
        words = ("sync", "--json", source, target, "--digests", digests, "--block-size", BLOCK, *options)
        argv = [*self.near, OURS, *words]
        started = time.monotonic()
        done = subprocess.run(list(map(str, argv)), check=True, capture_output=True)
        return json.loads(done.stdout), time.monotonic() - started


@pytest.fixture
def site() -> Iterator[Site]:
    # ssh's control sockets are in there: their names must be short.
    with (
        tempfile.TemporaryDirectory(prefix="link-") as root,
        shaped_link.linked(SHAPE) as ends,
        sshd.serving(Path(root) / "sshd", shaped_link.FAR_ADDRESS, near=ends.near, far=ends.far) as server,
    ):
        folder = Path(root) / "images"
        folder.mkdir()
        yield Site(server.near, folder)


def test_a_full_copy_fills_the_link_and_a_pass_without_changes_costs_no_round_trips(site: Site) -> None:
    site.source.write_bytes(os.urandom(SIZE))
    target = site.folder / "target"
    _, set_up = site.sync(site.folder / "one-block", "--size", BLOCK)
    first, copying = site.sync(target)
    assert target.read_bytes() == site.source.read_bytes()
    assert first["bytes_written"] == SIZE
    assert copying < set_up + SIZE / SHAPE.goodput / SHARE
    again, looking = site.sync(target)
    assert (again["bytes_changed"], again["bytes_written"], again["target_bytes_read"]) == (0, 0, 0)
    # The digests take 10 ms there. A round trip for each MiB would take 640 ms, for each block 164 s.
    assert looking < set_up + SIZE // MIB * SHAPE.round_trip
