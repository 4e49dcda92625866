"""A guest's tree on a real filesystem: nothing leads out of it, and every edit can be taken back."""

import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from blocksync.errors import Failed
from orchestrate.guest.files.edit import Edit
from orchestrate.guest.files.reading import LARGEST_FILE
from orchestrate.guest.files.tree import RECORD, SUFFIX, GuestTree

SECRET = b"the host's own\n"


@pytest.fixture
def root(tmp_path):
    guest = tmp_path / "guest"
    (guest / "etc").mkdir(parents=True)
    (guest / "etc/fstab").write_bytes(b"old\n")
    return guest


@pytest.fixture
def host_file(tmp_path):
    path = tmp_path / "passwd"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def tree(root):
    with GuestTree(root) as guest:
        yield guest


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        content = b""
        if stat.S_ISLNK(state.st_mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(state.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (state.st_mode, content)
    return found


def test_files_and_folders_are_read(tree):
    assert tree.read("/etc/fstab") == b"old\n"
    assert tree.names("/etc") == ("fstab",)
    assert tree.names("/nowhere") == ()
    assert tree.names("/etc/fstab") == ()
    assert tree.read("/etc") is None
    assert tree.read("/etc/fstab/below") is None
    assert tree.read("/etc/" + "n" * 300) is None


def test_an_absolute_link_leads_into_the_guest_and_not_to_the_host(tree, root, host_file):
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to(host_file)
    assert tree.read("/etc/fstab") is None
    tree.apply([Edit("/etc/fstab", b"new\n", "r")])
    assert host_file.read_bytes() == SECRET
    assert root.joinpath(*host_file.parts[1:]).read_bytes() == b"new\n"


def test_etc_passwd_of_the_host_is_never_the_guests_fstab(tree, root):
    before = Path("/etc/passwd").read_bytes()
    (root / "etc/passwd").write_bytes(b"guest\n")
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to("/etc/passwd")
    assert tree.read("/etc/fstab") == b"guest\n"
    tree.apply([Edit("/etc/fstab", b"new\n", "r")])
    assert Path("/etc/passwd").read_bytes() == before
    assert (root / "etc/passwd").read_bytes() == b"new\n"
    assert (root / "etc/fstab").is_symlink()


@pytest.mark.parametrize("up", ["../" * 12, "/../../../"], ids=["relative", "absolute"])
def test_dots_stop_at_the_guests_root(tree, root, host_file, up):
    (root / "etc/link").symlink_to(f"{up}{str(host_file)[1:]}")
    assert tree.read("/etc/link") is None
    assert tree.read(f"/{up}{host_file}") is None
    tree.apply([Edit("/etc/link", b"new\n", "r")])
    assert host_file.read_bytes() == SECRET


def test_a_linked_folder_leads_into_the_guest(tree, root, tmp_path, host_file):
    (root / "etc/default").symlink_to(tmp_path)
    assert tree.names("/etc/default") == ()
    assert tree.read("/etc/default/passwd") is None
    tree.apply([Edit("/etc/default/passwd", None, "r")])
    assert host_file.read_bytes() == SECRET
    (root / "data").mkdir()
    (root / "etc/default").unlink()
    (root / "etc/default").symlink_to("/data")
    tree.apply([Edit("/etc/default/grub", b"x", "r")])
    assert (root / "data/grub").read_bytes() == b"x"


def test_a_link_to_the_folder_above_the_root_is_refused(tree, root):
    (root / "up").symlink_to("..")
    with pytest.raises(Failed):
        tree.apply([Edit("/up", b"x", "r")])
    assert not (root.parent / f"..{SUFFIX}").exists()


def test_links_of_proc_are_not_followed(root):
    (root / "proc").mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        (root / "etc/me").symlink_to(f"/proc/{os.getpid()}/root/etc/passwd")
        with GuestTree(root) as tree:
            assert (root / "proc" / str(os.getpid()) / "root").is_symlink()
            assert tree.names(f"/proc/{os.getpid()}/root") == ()
            assert tree.read("/etc/me") is None
    finally:
        subprocess.run(["umount", root / "proc"], check=True)


def test_circles_of_links_are_absent_and_cannot_be_written(tree, root):
    (root / "etc/a").symlink_to("b")
    (root / "etc/b").symlink_to("a")
    assert tree.read("/etc/a") is None
    with pytest.raises(Failed, match="/etc/a in the guest"):
        tree.apply([Edit("/etc/a", b"x", "r")])


@pytest.mark.timeout(20)
def test_a_fifo_a_socket_and_a_device_are_absent_never_opened_and_never_replaced(tree, root):
    os.mkfifo(root / "etc/fifo")
    os.mknod(root / "etc/disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    os.mknod(root / "etc/watchdog", stat.S_IFCHR | 0o600, os.makedev(10, 130))
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(root / "etc")
        listening.bind("socket")
        os.chdir(here)
    for name in ("fifo", "socket", "disk", "watchdog"):
        path = f"/etc/{name}"
        assert tree.read(path) is None
        for content in (b"x", None):
            with pytest.raises(Failed, match="neither a regular file nor absent"):
                tree.apply([Edit("/etc/fstab", b"new\n", "r"), Edit(path, content, "r")])
    assert (root / "etc/fstab").read_bytes() == b"old\n"
    assert not (root / RECORD[1:]).exists()


def test_a_huge_file_is_an_error_that_names_it_and_costs_no_memory(tree, root):
    with (root / "etc/fstab").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Failed, match=f"/etc/fstab in the guest: it is larger than {LARGEST_FILE}"):
        tree.read("/etc/fstab")


def test_what_is_replaced_stays_beside_it_from_the_first_time(tree, root):
    tree.apply([Edit("/etc/fstab", b"new\n", "r")])
    tree.apply([Edit("/etc/fstab", b"newer\n", "r")])
    assert (root / "etc/fstab").read_bytes() == b"newer\n"
    assert (root / f"etc/fstab{SUFFIX}").read_bytes() == b"old\n"
    assert tree.names("/etc") == ("fstab", f"fstab{SUFFIX}", "xen2kvm.changes")


def test_an_original_that_was_kept_before_is_not_overwritten_even_without_a_record(tree, root):
    (root / f"etc/fstab{SUFFIX}").write_bytes(b"first\n")
    tree.apply([Edit("/etc/fstab", b"new\n", "r")])
    assert (root / f"etc/fstab{SUFFIX}").read_bytes() == b"first\n"


def test_mode_owner_and_attributes_stay_with_the_name(tree, root):
    path = root / "etc/fstab"
    path.chmod(0o4640)
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"kept")
    os.setxattr(path, "security.selinux", b"system_u:object_r:etc_t:s0\0")
    tree.apply([Edit("/etc/fstab", b"new\n", "r", mode=0o777)])
    state = path.stat()
    assert (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == (0o640, 1234, 4321)
    assert os.getxattr(path, "user.note") == b"kept"
    assert os.getxattr(path, "security.selinux") == b"system_u:object_r:etc_t:s0\0"


def test_new_files_and_folders_have_usual_modes_and_the_folders_label(tree, root):
    os.setxattr(root / "etc", "security.selinux", b"system_u:object_r:etc_t:s0\0")
    previous = os.umask(0o077)
    try:
        tree.apply([Edit("/etc/new", b"x", "r"), Edit("/a/b/run", b"x", "r", mode=0o755)])
    finally:
        os.umask(previous)
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("etc/new", "a", "a/b", "a/b/run")}
    assert modes == {"etc/new": 0o644, "a": 0o755, "a/b": 0o755, "a/b/run": 0o755}
    assert os.getxattr(root / "etc/new", "security.selinux") == b"system_u:object_r:etc_t:s0\0"


def test_a_link_that_is_taken_away_goes_itself(tree, root):
    wants = root / "etc/systemd/system/getty.target.wants"
    wants.mkdir(parents=True)
    (root / "unit").write_bytes(b"[Unit]\n")
    (wants / "serial-getty@hvc0.service").symlink_to("/unit")
    tree.apply([Edit("/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service", None, "r")])
    assert (root / "unit").read_bytes() == b"[Unit]\n"
    # systemd reads every name there that is not hidden.
    assert [path.name for path in wants.iterdir()] == [f".serial-getty@hvc0.service{SUFFIX}"]


def test_taking_away_what_is_not_there_does_nothing(tree, root):
    before = snapshot(root)
    tree.apply([Edit("/etc/blkid.tab", None, "r"), Edit("/no/such/folder", None, "r")])
    assert snapshot(root) == before


def test_restore_brings_back_exactly_what_was(tree, root):
    (root / "etc/inittab").symlink_to("../data/inittab")
    (root / "data").mkdir()
    (root / "data/inittab").write_bytes(b"gettys\n")
    (root / "etc/blkid.tab").write_bytes(b"cache\n")
    (root / "etc/dangling").symlink_to("/run/nothing")
    before = snapshot(root)
    first = [
        Edit("/etc/fstab", b"new\n", "r"),
        Edit("/etc/inittab", b"new\n", "r"),
        Edit("/etc/blkid.tab", None, "r"),
        Edit("/etc/dangling", None, "r"),
        Edit("/etc/systemd/network/10-eth0.link", b"[Match]\n", "r"),
        Edit("/etc/systemd/network/10-eth0.link", b"[Match]\n#\n", "r"),
        Edit("/etc/caf\udce9", b"bytes in a name\n", "r"),
    ]
    tree.apply(first)
    tree.apply([*first, Edit("/etc/blkid.tab", b"again\n", "r")])
    assert snapshot(root) != before
    restored = tree.restore()
    assert snapshot(root) == before
    assert {"/etc/fstab", "/data/inittab", "/etc/blkid.tab", "/etc/systemd/network"} <= set(restored)
    assert tree.restore() == ()


def test_one_file_under_two_names_is_one_change(tree, root):
    (root / "etc/alias").symlink_to("../etc")
    (root / "etc/modprobe.d").mkdir()
    (root / "etc/modprobe.d/a").write_bytes(b"old\n")
    tree.apply([Edit("/etc/alias/modprobe.d/a", b"1\n", "r"), Edit("/etc/../etc/modprobe.d/a", b"2\n", "r")])
    assert (root / f"etc/modprobe.d/.a{SUFFIX}").read_bytes() == b"old\n"
    assert tree.restore() == ("/etc/modprobe.d/a",)


def test_restore_leaves_a_folder_that_the_guest_has_come_to_use(tree, root):
    tree.apply([Edit("/new/file", b"x", "r")])
    (root / "new/theirs").write_bytes(b"y")
    tree.restore()
    assert [path.name for path in (root / "new").iterdir()] == ["theirs"]


CHANGE = b'{"change": "created", "path": "/etc/%s", "kept": "%s", "reason": ""}\n'


@pytest.mark.parametrize(
    "record",
    [
        b"[1]\n",
        b"{\n",
        b'{"path": 1}\n',
        b"\xff\n",
        b"[" * 100000 + b"\n",
        CHANGE % (b"a\\u0000b", b""),
        CHANGE % (b"a", b"/etc/\\u0000"),
        CHANGE % (b"\\ud800", b""),
        CHANGE % (b"x" * 5000, b""),
        CHANGE.replace(b"created", b"\\u001b[2J") % (b"a", b""),
        CHANGE.replace(b"/etc/", b"") % (b"a", b""),
    ],
)
def test_a_record_that_is_not_ours_is_an_error_and_nothing_is_written(tree, root, record):
    (root / RECORD[1:]).write_bytes(record)
    before = snapshot(root)
    with pytest.raises(Failed, match="not this program's record"):
        tree.apply([Edit("/etc/fstab", b"new\n", "r")])
    with pytest.raises(Failed, match="not this program's record"):
        tree.restore()
    assert snapshot(root) == before


def test_a_record_that_names_paths_outside_reaches_nothing_outside(tree, root, host_file):
    line = '{"change": "created", "path": "%s", "kept": "", "reason": ""}\n'
    (root / RECORD[1:]).write_text(line % host_file + line % f"/../..{host_file}")
    tree.restore()
    assert host_file.read_bytes() == SECRET


def test_a_guest_without_etc_gets_one_for_the_record_alone(tmp_path):
    with GuestTree(tmp_path) as tree:
        tree.apply([Edit("/boot/grub/grub.cfg", b"x", "r")])
        tree.restore()
    assert list(tmp_path.rglob("*")) == [tmp_path / "etc"]


@pytest.mark.parametrize("call", ["rename", "fsync", "link"])
def test_killed_at_any_step_the_file_is_old_or_new_and_restore_still_works(root, call):
    """A real process is killed at each call in turn: SIGKILL leaves no chance to clean up."""
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from orchestrate.guest.files.edit import Edit
        from orchestrate.guest.files.tree import GuestTree
        root, call, countdown = sys.argv[1], sys.argv[2], int(sys.argv[3])
        real = getattr(os, call)
        def dying(*arguments, **options):
            global countdown
            countdown -= 1
            if countdown < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, call, dying)
        with GuestTree(Path(root)) as tree:
            tree.apply([Edit("/etc/fstab", b"new\\n", "r"), Edit("/etc/other", b"made\\n", "r")])
    """)
    before = snapshot(root)
    for countdown in range(20):
        done = subprocess.run([sys.executable, "-c", script, root, call, str(countdown)], check=False)
        assert (root / "etc/fstab").read_bytes() in (b"old\n", b"new\n")
        with GuestTree(root) as tree:
            tree.restore()
        left = {name: state for name, state in snapshot(root).items() if not name.endswith(".xen2kvm-new")}
        assert left == before
        if done.returncode == 0:
            break
    else:
        pytest.fail("the process never got to its end")
    assert countdown > 0
