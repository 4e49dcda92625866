"""The demo: a paravirtual guest of three bare volumes becomes one disk that boots by itself.

Runs the real commands on a real Debian guest; nothing but files is touched.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from xen_guest import MAC, MIB, PASSWORD, Recipe, XenGuest, build

from orchestrate.kvm.accel import choose
from orchestrate.kvm.machine import Machine, MachineSpec

BIN = Path(sys.executable).parent


def main() -> None:
    """Build the guest, migrate it, log in."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, default=Path(".cache/demo"))
    options.add_argument("--cache", type=Path, default=Path(".cache/guests"))
    arguments = options.parse_args()
    started = time.monotonic()
    shutil.rmtree(arguments.work, ignore_errors=True)
    say("A Xen guest as xen-tools makes it: three volumes, no partition table, no boot loader (debootstrap)")
    guest = build(arguments.work, arguments.cache, Recipe())
    migrate(guest, arguments.work)
    say("Power on: BIOS, this disk, nothing else")
    log_in(arguments.work / "demo.raw", arguments.work / "console.log")
    say(f"Done in {time.monotonic() - started:.0f} s. The disk is {arguments.work}/demo.raw")


def migrate(guest: XenGuest, work: Path) -> None:
    """The whole way, command by command."""
    plan, job = work / "demo.toml", f"--job-dir={work}/job"
    command("plan", guest.config, f"--disk={work}/demo.raw", f"-o{plan}", *guest.volume_options)
    say("First pass: everything")
    command("sync", plan, job)
    say("The guest goes on writing; the next pass writes what changed")
    write_some(guest)
    command("sync", plan, job)
    say("Rehearsal: boot an overlay, days before the cutover; the copy stays as it is")
    command("rehearse", plan, job)
    say("Cutover: last pass, proof, repairs, boot loader")
    command("cutover", plan, job)


def write_some(guest: XenGuest) -> None:
    """Change half a MiB in the middle of free space of /srv, as the running guest would."""
    srv = guest.volumes["/dev/vg0/demo-srv"]
    with srv.open("r+b") as volume:
        volume.seek(srv.stat().st_size - 8 * MIB)
        volume.write(b"written between two passes\n" * 20_000)


def command(name: str, *arguments: object) -> None:
    """Run `xen2kvm` as a user would, and stop where it fails."""
    argv = [str(BIN / "xen2kvm"), name, *(str(argument) for argument in arguments)]
    print("$ xen2kvm", *argv[1:], flush=True)
    done = subprocess.run(argv, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def log_in(disk: Path, log: Path) -> None:
    """Boot the disk by BIOS, log in on the serial console, show where we are, power off."""
    spec = MachineSpec(disk=disk, memory_mib=512, accelerator=choose(), macs=(MAC,))
    with Machine(spec, log) as machine:
        machine.wait_for("login:", 300)
        print("\n".join(machine.last_lines(6)), flush=True)
        machine.send_line("root")
        machine.wait_for("Password:", 60)
        machine.send_line(PASSWORD)
        machine.wait_for(r"# $", 120)
        machine.send_line("lsblk -f /dev/vda; ip -br address; cat /srv/greeting; uname -r; echo de''mo ends")
        machine.wait_for("demo ends", 60)
        print("\n".join(machine.last_lines(14)), flush=True)
        machine.send_line("poweroff")
        machine.wait_for_end(120)


def say(text: str) -> None:
    """A heading."""
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    main()
