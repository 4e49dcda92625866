"""Where the lab keeps what it built, what its machines are called, and the keys they know each other by."""

import subprocess
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "lab"
GUESTS = CACHE.parent / "guests"

SUITE = "bookworm"
GUEST = "web1"
GROUP = "vg0"
DOM0_ADDRESS = "10.0.2.15"
GUEST_ADDRESS = "10.0.2.16"
GATEWAY = "10.0.2.2"
GUEST_MAC = "00:16:3e:5e:ed:01"
_SLOW_UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-tmpfiles-clean.timer"),
)
HOSTS = {"dom0": DOM0_ADDRESS, GUEST: GUEST_ADDRESS}


def tool(*argv: str, text: str | None = None) -> str:
    """Run a tool; its standard output. What it printed is in the error when it fails."""
    done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        printed = (done.stdout + done.stderr)[-4000:]
        raise SystemExit(f"{' '.join(argv)} failed ({done.returncode}):\n{printed}")
    return done.stdout


def sparse(path: Path, mib: int) -> Path:
    """A new file of holes."""
    with path.open("wb") as file:
        file.truncate(mib << 20)
    return path


def key(name: str) -> Path:
    """A private key of the lab's own, made on first use; its public half is beside it, with `.pub`."""
    path = CACHE / "ssh" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"xen2kvm lab {name}", "-f", str(path))
    return path


def mask_slow_units(tree: Path) -> None:
    """Leave out what a machine of the lab has no use for, and software emulation no time."""
    for unit in _SLOW_UNITS:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")


def admit_ssh(tree: Path, host: str) -> None:
    """Give a machine's tree its host key, and root's login to the lab's user key."""
    ssh = tree / "etc/ssh"
    for stale in ssh.glob("ssh_host_*"):
        stale.unlink()
    host_key = key(f"host_{host}")
    target = ssh / "ssh_host_ed25519_key"
    target.write_bytes(host_key.read_bytes())
    target.chmod(0o600)
    target.with_suffix(".pub").write_bytes(host_key.with_suffix(".pub").read_bytes())
    admitted = tree / "root/.ssh/authorized_keys"
    admitted.parent.mkdir(mode=0o700, exist_ok=True)
    admitted.write_bytes(key("user").with_suffix(".pub").read_bytes())
    (ssh / "sshd_config.d/lab.conf").write_text("UseDNS no\nPermitRootLogin prohibit-password\n")
