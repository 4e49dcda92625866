"""Whole guests from real-looking files in all three notations."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blocksync.errors import Usage
from orchestrate.xen.guest import XenGuest, read_guest

CONFIGS = Path(__file__).parent / "configs"
ONE_DISK = "disk = ['phy:/dev/vg/x,xvda1,w']\n"


def written(folder: Path, text: str, name: str = "guest.cfg") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def disks(guest: XenGuest) -> list[tuple[str, str, str, bool]]:
    return [(disk.vdev, disk.target, disk.format, disk.readonly) for disk in guest.disks]


def refusal(folder: Path, text: str) -> Usage:
    with pytest.raises(Usage) as caught:
        read_guest(written(folder, text))
    assert caught.value.way_out
    return caught.value


def test_xen_tools_3_9_guest_of_lenny() -> None:
    guest = read_guest(CONFIGS / "xen-tools-3.9-lenny.cfg")
    assert (guest.name, guest.kind, guest.memory_mib, guest.vcpus) == ("mail.example.org", "pv", 512, 1)
    assert guest.kernel == "/boot/vmlinuz-2.6.26-2-xen-amd64"
    assert guest.ramdisk == "/boot/initrd.img-2.6.26-2-xen-amd64"
    assert guest.root == "/dev/sda2"
    assert guest.cmdline == "root=/dev/sda2 ro console=hvc0 xencons=tty"
    assert disks(guest) == [
        ("sda1", "/dev/vg0/mail.example.org-swap", "raw", False),
        ("sda2", "/dev/vg0/mail.example.org-disk", "raw", False),
    ]
    assert [disk.line for disk in guest.disks] == [18, 19]
    assert [(vif.mac, vif.ips) for vif in guest.vifs] == [("00:16:3e:4a:19:c2", ("192.0.2.25",))]
    assert (guest.on_poweroff, guest.on_reboot, guest.on_crash) == ("destroy", "restart", "restart")
    assert guest.warnings == ()


def test_xen_tools_4_9_guest_of_bookworm() -> None:
    guest = read_guest(CONFIGS / "xen-tools-4.9-bookworm.cfg")
    assert (guest.name, guest.memory_mib, guest.maxmem_mib, guest.vcpus) == ("web1", 1024, 2048, 2)
    assert guest.extra == "elevator=noop"
    assert guest.cmdline == "root=/dev/xvda2 ro elevator=noop"
    assert [(disk.vdev, disk.target) for disk in guest.disks] == [
        ("xvda2", "/dev/vg0/web1-root"),
        ("xvda3", "/dev/vg0/web1-srv"),
        ("xvda1", "/dev/vg0/web1-swap"),
    ]
    assert [(vif.mac, vif.bridge) for vif in guest.vifs] == [("00:16:3e:0f:a0:01", "xenbr0")]
    assert guest.warnings == ()


def test_xl_guest_written_by_hand() -> None:
    guest = read_guest(CONFIGS / "xl-by-hand.cfg")
    assert (guest.name, guest.kind, guest.memory_mib, guest.maxmem_mib) == ("db1", "pvh", 4096, 8192)
    assert guest.uuid == "0d5b2a3e-7f0c-4b1e-9f4e-2f6c7a1b9c3d"
    assert guest.root == "UUID=5f7c2b1e-33c4-4cb8-8f52-0a3d1c9e7b11"
    assert guest.cmdline == "root=UUID=5f7c2b1e-33c4-4cb8-8f52-0a3d1c9e7b11 ro quiet console=hvc0"
    assert disks(guest) == [
        ("xvda", "/dev/vg1/db1-root", "raw", False),
        ("xvdb", "/dev/vg1/db1-data", "raw", False),
        ("xvdc", "/srv/images/db1-log.qcow2", "qcow2", False),
    ]
    assert [vif.model for vif in guest.vifs] == [None, "e1000"]
    assert [vif.name for vif in guest.vifs] == ["db1.0", None]
    assert (guest.localtime, guest.on_crash) == (False, "preserve")
    assert len(guest.warnings) == 1
    assert "CD-ROM hdd with /srv/iso/rescue.iso is left out" in guest.warnings[0]


def test_xm_guest_with_python_expressions() -> None:
    guest = read_guest(CONFIGS / "xm-python-ish.cfg")
    assert (guest.name, guest.memory_mib, guest.kernel) == ("build07", 384, None)
    assert guest.bootloader == "/usr/lib/xen-default/bin/pygrub"
    assert guest.root == "/dev/hda1"
    assert guest.cmdline == "root=/dev/hda1 ro console=xvc0 panic=30"
    assert disks(guest) == [
        ("hda1", "/dev/vg0/build07-root", "raw", False),
        ("hda2", "/dev/vg0/build07-swap", "raw", False),
        ("hda3", "/srv/xen/build07-scratch.img", "raw", True),
    ]
    assert [(vif.mac, vif.bridge) for vif in guest.vifs] == [("00:16:3e:00:00:07", "eth0")]
    assert guest.warnings == ()


def test_json_of_xl_list() -> None:
    guest = read_guest(CONFIGS / "xl-list.json")
    assert (guest.name, guest.kind, guest.uuid) == ("cache1", "pv", "3c1c5b52-7a5e-4c83-9f44-0f6f3a0e5a10")
    assert (guest.memory_mib, guest.maxmem_mib, guest.vcpus, guest.localtime) == (512, 1024, 2, True)
    assert guest.kernel == "/boot/vmlinuz-6.1.0-13-amd64"
    assert (guest.root, guest.cmdline) == ("/dev/xvda2", "root=/dev/xvda2 ro elevator=noop")
    assert disks(guest) == [
        ("xvda2", "/dev/vg0/cache1-root", "raw", False),
        ("xvda1", "/dev/vg0/cache1-swap", "raw", False),
        ("xvdb", "/srv/xen/cache1.qcow2", "qcow2", True),
        ("xvdd", "/dev/drbd/by-res/cache1/0", "raw", False),
    ]
    assert [(vif.mac, vif.bridge, vif.ips, vif.name) for vif in guest.vifs] == [
        ("00:16:3e:37:d0:70", "xenbr0", ("10.0.0.5",), None),
        ("00:16:3e:37:d0:71", "xenbr1", (), "cache1.1"),
    ]
    assert (guest.on_poweroff, guest.on_reboot, guest.on_crash) == ("destroy", "restart", "restart")


def test_s_expressions_of_xm_list() -> None:
    guest = read_guest(CONFIGS / "xm-list.sxp")
    assert (guest.name, guest.kind, guest.memory_mib, guest.maxmem_mib) == ("files", "pv", 512, 768)
    assert guest.kernel == "/boot/vmlinuz-2.6.18-6-xen-686"
    assert (guest.root, guest.bootloader) == ("/dev/sda1", None)
    assert guest.cmdline == "root=/dev/sda1 ro console=xvc0 panic=30"
    assert disks(guest) == [
        ("sda1", "/dev/vg0/files-root", "raw", False),
        ("sda2", "/srv/xen/files-swap.img", "raw", True),
    ]
    assert [(vif.mac, vif.bridge) for vif in guest.vifs] == [("00:16:3e:1b:8b:d2", "eth0")]
    assert guest.on_crash == "restart"


def test_a_guest_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    guest = read_guest(written(tmp_path, ONE_DISK + "memory=64\n", "old.mail.cfg"))
    assert guest.name == "old.mail"
    assert len(guest.warnings) == 1
    assert "no name is set" in guest.warnings[0]


def test_a_guest_without_memory_gets_what_xm_gives_and_is_told(tmp_path: Path) -> None:
    guest = read_guest(written(tmp_path, ONE_DISK + "name='x'"))
    assert guest.memory_mib == 128
    assert "no memory is set" in guest.warnings[0]


def test_cmdline_overrides_root_and_extra(tmp_path: Path) -> None:
    text = ONE_DISK + "name='x'; memory=64; root='/dev/xvda9 ro'; extra='quiet'; cmdline='root=/dev/xvda1 rw'"
    guest = read_guest(written(tmp_path, text))
    assert (guest.cmdline, guest.root) == ("root=/dev/xvda1 rw", "/dev/xvda1")
    assert len(guest.warnings) == 1
    assert "root and extra do not count" in guest.warnings[0]


@pytest.mark.parametrize(
    "kernel", ["/usr/lib/xen/boot/pv-grub-x86_64.gz", "/usr/lib/grub-xen/grub-x86_64-xen.bin"]
)
def test_pv_grub_is_a_boot_loader_and_its_menu_no_command_line(tmp_path: Path, kernel: str) -> None:
    text = ONE_DISK + f"name='x'; memory=64; kernel='{kernel}'; extra='(hd0,0)/boot/grub/menu.lst'"
    guest = read_guest(written(tmp_path, text))
    assert (guest.bootloader, guest.cmdline, guest.root) == ("pv-grub", "", None)


@pytest.mark.parametrize("how", ["builder='hvm'", "type='hvm'", 'type="HVM"'])
def test_an_hvm_guest_is_refused_as_it_has_a_whole_disk(tmp_path: Path, how: str) -> None:
    error = refusal(tmp_path, f"name='x'\n{how}\n{ONE_DISK}")
    assert error.thing.startswith(f"{tmp_path}/guest.cfg:2:")
    assert "HVM" in error.cause
    assert "blocksync sync" in error.way_out


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        pytest.param(ONE_DISK + "memory='lots'", "2:8", "'lots'", id="memory-in-words"),
        pytest.param(ONE_DISK + "memory='0512'", "2:8", "'0512'", id="memory-octal-or-not"),
        pytest.param(ONE_DISK + "memory=0", "2:8", "at least 1", id="no-memory"),
        pytest.param(ONE_DISK + "memory=['512']", "2:8", "a list", id="memory-in-a-list"),
        pytest.param(ONE_DISK + "vcpus=-1", "2:7", "at least 1", id="vcpus"),
        pytest.param(ONE_DISK + "localtime='maybe'", "2:11", "0 or 1", id="localtime"),
        pytest.param(ONE_DISK + "type='container'", "2:6", "no kind of guest", id="type"),
        pytest.param(ONE_DISK + "name='../x'", "2:6", "cannot name a guest", id="name-that-is-a-path"),
        pytest.param(ONE_DISK + "vif='bridge=br0'", "2:5", "a list was expected", id="vif-no-list"),
        pytest.param("memory=5", "1:1", "no disk", id="no-disk"),
        pytest.param("\ndisk=[]", "2:6", "no disk", id="empty-disk-list"),
        pytest.param("disk=[',hdc:cdrom,r']", "1:6", "no disk", id="only-a-cdrom"),
        pytest.param("disk='phy:/dev/vg/x,xvda,w'", "1:6", "a list was expected", id="disk-no-list"),
        pytest.param("disk=['phy:,xvda,w']", "1:7", "no target", id="target-missing"),
        pytest.param(
            "disk=['phy:a,xvda1,w',\n'phy:b,xvdb,w',\n 'phy:c,d0p1,w']",
            "3:2",
            "xvda1 is given twice",
            id="vdev-twice",
        ),
    ],
)
def test_wrong_values_are_refused_with_line_and_column(
    tmp_path: Path, text: str, place: str, cause: str
) -> None:
    error = refusal(tmp_path, text)
    assert error.thing == f"{tmp_path}/guest.cfg:{place}"
    assert cause in error.cause


def test_files_that_cannot_be_a_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.cfg").write_bytes(b"name='x'\0")
    (tmp_path / "large.cfg").write_bytes(b"#" * ((1 << 20) + 1))
    os.mkfifo(tmp_path / "pipe.cfg")
    (tmp_path / "loop.cfg").symlink_to("loop.cfg")
    causes = {
        "missing.cfg": "No such file",
        "binary.cfg": "binary",
        "large.cfg": "larger than 1048576 bytes",
        "pipe.cfg": "not a regular file",
        "loop.cfg": "symbolic links",
        ".": "directory",
    }
    for name, cause in causes.items():
        with pytest.raises(Usage) as caught:
            read_guest(tmp_path / name)
        assert caught.value.thing == str(tmp_path / name)
        assert cause in caught.value.cause
        assert caught.value.way_out


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ONE_DISK)
    path.chmod(0)
    program = (
        "import os, sys, pathlib\n"
        "from orchestrate.xen.guest import read_guest\n"
        "from blocksync.errors import Usage\n"
        "os.chdir(sys.argv[1]); os.setuid(65534)\n"
        "try:\n    read_guest(pathlib.Path('guest.cfg'))\n"
        "except Usage as error:\n    print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert "guest.cfg: cannot be read: Permission denied" in said.stdout


def test_the_largest_file_is_still_read(tmp_path: Path) -> None:
    text = ONE_DISK + "name='x'; memory=64\n"
    guest = read_guest(written(tmp_path, text + "#" * ((1 << 20) - len(text))))
    assert guest.name == "x"


def test_comments_in_latin_1_are_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "guest.cfg"
    path.write_bytes(b"# f\xfcr den Webserver\n" + ONE_DISK.encode() + b"name='x'; memory=64\n")
    assert read_guest(path).warnings == (f"{path}: not UTF-8; read as Latin-1",)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "guest.cfg"
    path.write_bytes(b"\xef\xbb\xbfname='x'; memory=64\n" + ONE_DISK.encode())
    assert read_guest(path).name == "x"


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.system('touch MARKER')",
        "__import__('os').system('touch MARKER')",
        "a = open('MARKER', 'w')",
        "a = [open('MARKER', 'w') for b in [1]]",
        "a = '%s' % open('MARKER', 'w')",
        "exec(\"open('MARKER', 'w')\")",
    ],
)
def test_what_a_file_would_run_is_not_run(tmp_path: Path, line: str) -> None:
    error = refusal(tmp_path, line.replace("MARKER", str(tmp_path / "marker")))
    assert "never run" in error.cause
    assert [path.name for path in tmp_path.iterdir()] == ["guest.cfg"]
