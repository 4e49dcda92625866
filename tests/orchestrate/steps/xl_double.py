"""A toolstack on PATH that keeps its guests as files: for the order of a cutover's commands."""

import os
from dataclasses import dataclass
from pathlib import Path

GUEST = "xen2kvm-small"
"""The small guest's name: unlike the lab's guest, whose domain may be in the same libvirt meanwhile."""

XL = """#!/bin/sh
cd {folder} || exit 1
echo "$@" >>calls
case $1 in
list) echo 'Name                                        ID   Mem VCPUs\tState\tTime(s)'
    [ -e running ] && echo "{guest} 1 256 1 -b---- 3.5"; exit 0 ;;
domid) [ -e running ] ;;
shutdown) [ -e stubborn ] || rm -f running ;;
destroy) rm -f running ;;
create)
    [ -e running ] && exit 1
    [ -s busy ] || {{ touch running; exit 0; }}
    sed -i 1d busy
    echo 'libxl: error: killing execution of /etc/xen/scripts/block add because of timeout' >&2
    exit 1 ;;
esac
"""


@dataclass(frozen=True)
class XlDouble:
    """Its folder; the guest runs while the file `running` is there."""

    folder: Path

    @property
    def running(self) -> bool:
        return (self.folder / "running").exists()

    def start(self) -> None:
        (self.folder / "running").touch()

    def is_stubborn(self) -> None:
        (self.folder / "stubborn").touch()

    def is_busy_for(self, attempts: int) -> None:
        """So many times to come, the host takes too long to attach the guest's devices."""
        (self.folder / "busy").write_text("busy\n" * attempts)

    def calls(self, command: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[0] == command]

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{os.environ['PATH']}"}


def make(folder: Path) -> XlDouble:
    """The double in a new folder, with its guest running."""
    folder.mkdir()
    script = folder / "xl"
    script.write_text(XL.format(folder=folder, guest=GUEST))
    script.chmod(0o755)
    double = XlDouble(folder)
    double.start()
    return double
