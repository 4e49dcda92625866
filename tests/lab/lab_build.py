"""`make lab`: build the Xen host once, and keep it running in a file.

The volume group is made by the host itself, which has the kernel for it. Then the host and its guest are
started, and the machine's memory is kept: the tests start from there in seconds.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dom0_image import bootstrap_dom0, build_dom0
from guest_volumes import SIZES_MIB, build_guest
from lab_places import CACHE, GROUP, GUEST, sparse, tool
from xen_host import State, base, is_built, running, xen_lab

GROUP_MIB = 8192


def build() -> None:
    """Build what is not there yet."""
    if is_built():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    if not all(disk.exists() for disk in base().disks):
        _build_disks()
    _keep_running()


def _build_disks() -> None:
    with _step("dom0's tree"):
        tree = bootstrap_dom0()
    with _step("the guest's volumes"):
        volumes = build_guest(tree)
    with _step("dom0's disk"):
        dom0 = build_dom0(tree)
    with _step("the volume group, on the host itself"):
        group = sparse(CACHE / f"{GROUP}.partial", GROUP_MIB)
        _fill_group(State((dom0, group)), volumes)
    shutil.rmtree(tree)
    for volume in volumes.values():
        volume.unlink()


def _fill_group(state: State, volumes: dict[str, Path]) -> None:
    folder = _fresh(CACHE / "filling")
    with xen_lab(folder, state, extra_disks=[volumes[part] for part in SIZES_MIB]) as lab:
        lab.shell(f"pvcreate -q /dev/vdb; vgcreate -q {GROUP} /dev/vdb")
        for part, disk in zip(SIZES_MIB, ("vdc", "vdd", "vde"), strict=True):
            name = f"{GUEST}-{part}"
            lab.shell(
                f"lvcreate -q -W n -Z n -L {SIZES_MIB[part]}m -n {name} {GROUP}\n"
                f"dd if=/dev/{disk} of=/dev/{GROUP}/{name} bs=1M conv=sparse,fsync status=none"
            )
        lab.power_off()
    for disk in base().disks:
        partial = disk.with_suffix(".new")
        tool("qemu-img", "convert", "-O", "raw", str(folder / f"{disk.stem}.qcow2"), str(partial))
        partial.rename(disk)
    state.disks[1].unlink()
    shutil.rmtree(folder)


def _keep_running() -> None:
    folder = _fresh(CACHE / "starting")
    state = running()
    with _step("the host and its guest, started"), xen_lab(folder, base()) as lab:
        lab.start_guest()
        memory = folder / "memory"
        lab.save(memory)
    for disk in state.disks:
        (folder / disk.name).replace(disk)
    memory.replace(state.memory or memory)
    shutil.rmtree(folder)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Says what is being built, and how long it took."""
    print(f"{what} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"  {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    build()
