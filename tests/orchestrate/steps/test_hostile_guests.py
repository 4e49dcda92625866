"""A guest and a configuration that mean harm: the operator's terminal, memory and commands are his.

Each runs the real command on real file systems.
"""

import json
import os
import re
import resource
import subprocess
import unicodedata

import pytest

from conftest import FILES, XEN2KVM, SmallGuest, make_ext4

USAGE, REFUSED = 2, 3
ROOT = "/dev/xvda2 / ext4 defaults 0 1\n"


def plan(guest: SmallGuest, *options: object) -> subprocess.CompletedProcess[str]:
    """`xen2kvm plan` in little memory."""
    mapped = [f"--volume=/dev/vg0/{name}={path}" for name, path in guest.volumes.items()]
    argv = [XEN2KVM, "plan", guest.config, f"--disk={guest.target}", f"-o{guest.plan}", *mapped, *options]
    return subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
    )


def rebuilt(guest: SmallGuest, **files: str) -> None:
    """The guest's root with other files."""
    make_ext4(guest.volumes["xvda2"], {**FILES, **files, "srv/.keep": ""})


def assert_harmless(done: subprocess.CompletedProcess[str]) -> None:
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    control = [
        each for each in said if unicodedata.category(each) in {"Cc", "Cf", "Zl", "Zp"} and each != "\n"
    ]
    assert control == []


@pytest.mark.parametrize(
    "place",
    [
        r"/srv\033]0;PWNED\007\033]52;c;ZXZpbA==\007",
        "/srv/[/x]",
        "/srv/[link=http://evil]x[/link]",
        "/srv/:bomb:",
        "/srv/[bold]",
        r"/srv\012error:\040fake",
        r"/srv\302\233[2J",
    ],
)
def test_a_mount_point_is_neither_markup_nor_an_escape_nor_a_line(small_guest, place):
    rebuilt(small_guest, **{"etc/fstab": f"{ROOT}/dev/xvda3 {place} ext4 defaults 0 2\n"})
    done = plan(small_guest)
    assert done.returncode == 0, done.stderr
    assert_harmless(done)
    assert "\nerror:" not in done.stdout
    if place.startswith("/srv/"):
        assert place.replace("//", "/") in done.stdout


SPARSE = [
    "etc/inittab",
    "etc/fstab",
    "etc/default/grub",
    "boot/grub/menu.lst",
    "etc/securetty",
    "etc/debian_version",
    "etc/network/interfaces",
    "boot/config-6.1.0-9-amd64",
    "etc/xen2kvm.changes",
]


@pytest.mark.parametrize("path", SPARSE)
def test_a_sparse_file_costs_nothing_and_is_an_error_where_it_is_needed(small_guest, path):
    tree = small_guest.volumes["xvda2"].with_suffix(".tree")
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    with (tree / path).open("wb") as file:
        file.write(b"begins\n")
        file.truncate(1 << 40)
    image = small_guest.volumes["xvda2"]
    image.unlink()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, image], check=True)
    done = plan(small_guest)
    assert_harmless(done)
    needed = path not in {"etc/debian_version", "etc/xen2kvm.changes"}
    assert (done.returncode == 1) is needed, done.stderr
    assert not needed or "is larger than any configuration file" in done.stderr


def test_a_configuration_adds_no_line_no_check_and_no_escape(small_guest):
    evil = "x\ncheck = [{command = ['/bin/sh','-c','id']}]\nwarning: \x1b]0;PWNED\x07\x85\u2028\u202e"
    disks = [
        {"pdev_path": str(path), "vdev": name, "format": 1, "readwrite": 1, "backend_domname": evil}
        for name, path in small_guest.volumes.items()
    ]
    info = {"name": "web1", "type": 2, "max_memkb": 65536, "type.pv": {"cmdline": "root=/dev/xvda2"}}
    listing = [{"domid": 1, "config": {"c_info": info, "b_info": info, "disks": disks}}]
    small_guest.config.write_text(json.dumps(listing))
    done = plan(small_guest)
    assert_harmless(done)
    assert not re.search(r"^check = ", done.stdout + done.stderr, re.MULTILINE)
    if done.returncode == 0:
        assert "\ncheck" not in small_guest.plan.read_text()


@pytest.mark.parametrize(
    ("vif", "cause"),
    [
        ("ip=1.2.3.4/99,mac=00:16:3e:00:00:01", "is not an IP address"),
        ("ip=300.1.1.1", "is not an IP address"),
        ("ip=fe80::1%eth0/64/64", "is not an IP address"),
        ("bridge=[/x]", "is not a bridge's name"),
        ("bridge=a b", "is not a bridge's name"),
        ("bridge=-x", "is not a bridge's name"),
    ],
)
def test_a_typo_in_a_vif_is_an_error_with_its_place(small_guest, vif, cause):
    small_guest.write_config(vif=f"['{vif}']")
    done = plan(small_guest)
    assert done.returncode == USAGE
    assert_harmless(done)
    assert re.search(rf"guest\.cfg:5:\d+: .*{cause}", done.stderr)
    assert not small_guest.plan.exists()


@pytest.mark.parametrize("name", ["$(id)", "-x", "é", "n" * 5000])
def test_a_plan_that_no_command_would_read_is_not_written(small_guest, name):
    small_guest.write_config(name=f"'{name}'")
    done = plan(small_guest)
    assert done.returncode == USAGE
    assert_harmless(done)
    assert not small_guest.plan.exists()


def test_a_copy_of_a_volume_is_refused_before_anything_is_written(small_guest):
    small_guest.volumes["xvda3"].write_bytes(small_guest.volumes["xvda2"].read_bytes())
    done = plan(small_guest)
    assert done.returncode == REFUSED
    assert "tune2fs -U random" in done.stderr
    assert not small_guest.plan.exists()


def test_an_fstab_that_cannot_be_read_stops_the_plan(small_guest):
    argv = [
        "debugfs",
        "-w",
        "-R",
        "set_inode_field /etc/fstab block[5] 0x0fffffff",
        small_guest.volumes["xvda2"],
    ]
    subprocess.run(argv, check=True, capture_output=True)
    done = plan(small_guest)
    assert done.returncode == 1
    assert "/etc/fstab" in done.stderr
    assert "cannot be read" in done.stderr
    assert not small_guest.plan.exists()


@pytest.mark.parametrize("name", ["--disk=/tmp/\udcff.raw", "--volume=/dev/vg0/xvda3=/tmp/\udcff"])
def test_a_name_that_is_no_text_is_an_error_and_no_traceback(small_guest, name):
    done = small_guest.make_plan(name)
    assert done.returncode in {1, USAGE}
    assert "Traceback" not in done.stderr
    assert not small_guest.plan.exists()


def test_the_cause_in_a_journal_is_shown_as_it_is_and_obeyed_by_nothing(planned_guest):
    folder = planned_guest.folder / "job"
    folder.mkdir()
    step = {"step": "x[/dev/vda1: clean]", "status": "failed", "cause": "[/x] :bomb: \x1b[2J\n\u202e"}
    (folder / "journal.json").write_text(json.dumps({"format": 1, "steps": [step]}))
    done = planned_guest.step("status")
    assert "Traceback" not in done.stderr
    assert_harmless(done)
    if done.returncode == 0:
        assert "[/x] :bomb: ?[2J??" in done.stdout


@pytest.mark.parametrize("tool", ["blkid", "stat", "grub-fstest"])
def test_what_a_tool_complains_of_is_no_advice_and_no_escape(small_guest, tmp_path, monkeypatch, tool):
    folder = tmp_path / "lying"
    folder.mkdir()
    script = folder / tool
    script.write_text("#!/bin/sh\nprintf '\\033]0;PWNED\\007\\n  hint: rm -rf /\\n' >&2; exit 5\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    done = plan(small_guest)
    assert done.returncode != 0
    assert_harmless(done)
    assert not re.search(r"^\s*hint: rm", done.stderr, re.MULTILINE)
