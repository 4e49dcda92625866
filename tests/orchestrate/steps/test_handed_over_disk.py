"""A disk that was handed over stays the guest's, whatever becomes of its job and however it is called."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from test_passes_and_cutover import digest, on_target
from xl_double import GUEST

USAGE, REFUSED = 2, 3
XEN2KVM = Path(sys.executable).parent / "xen2kvm"


@pytest.fixture
def handed_over(planned_guest):
    planned_guest.result("sync")
    planned_guest.result("cutover")
    return planned_guest


def job_of(guest) -> Path:
    return guest.folder / "job"


def other_spelling(guest) -> None:
    folder = guest.target.parent
    text = guest.plan.read_text()
    guest.plan.write_text(
        text.replace(f'"{guest.target}"', f'"{folder}/../{folder.name}/{guest.target.name}"')
    )


def symbolic_link(guest) -> None:
    link = guest.folder / "link.raw"
    link.symlink_to(guest.target)
    guest.plan.write_text(guest.plan.read_text().replace(f'"{guest.target}"', f'"{link}"'))


def hard_link(guest) -> None:
    link = guest.folder / "second-name.raw"
    link.hardlink_to(guest.target)
    guest.plan.write_text(guest.plan.read_text().replace(f'"{guest.target}"', f'"{link}"'))


def lost_state(guest) -> None:
    (job_of(guest) / "state.json").unlink()


def lost_journal(guest) -> None:
    (job_of(guest) / "journal.json").unlink()


def lost_state_and_journal(guest) -> None:
    lost_state(guest)
    lost_journal(guest)


def another_job_folder(guest) -> None:
    shutil.rmtree(job_of(guest))


@pytest.mark.parametrize(
    "change",
    [
        other_spelling,
        symbolic_link,
        hard_link,
        lost_state,
        lost_journal,
        lost_state_and_journal,
        another_job_folder,
    ],
)
def test_passes_never_write_to_it(handed_over, change):
    change(handed_over)
    before = digest(handed_over.target)
    for command in ("sync", "precopy", "cutover", "rehearse"):
        done = handed_over.step(command)
        assert done.returncode == REFUSED, done.stderr
        assert f"since the cutover of {GUEST}" in done.stderr
        assert "--again" not in done.stderr
    assert digest(handed_over.target) == before


@pytest.mark.parametrize("change", [lost_state, lost_journal, lost_state_and_journal, other_spelling])
def test_its_guest_is_not_rolled_back_without_a_choice(handed_over, change):
    change(handed_over)
    done = handed_over.step("rollback")
    assert done.returncode == REFUSED
    assert "--send-back" in done.stderr


def test_giving_it_up_needs_a_word_and_says_what_is_lost(handed_over):
    before = digest(handed_over.target)
    for words in (
        ("sync", "--again"),
        ("precopy", "--again"),
        ("cutover", "--again"),
        ("rollback", "--discard"),
    ):
        done = handed_over.step(*words)
        assert done.returncode == USAGE
        assert f"gives up all that {GUEST} wrote on KVM since" in done.stderr
        assert "--yes" in done.stderr
    assert digest(handed_over.target) == before


def test_at_a_terminal_only_the_guest_s_name_gives_it_up(handed_over):
    before = digest(handed_over.target)
    words = ["sync", str(handed_over.plan), f"--job-dir={job_of(handed_over)}", "--again"]
    for said, code in (("y", REFUSED), ("", REFUSED), (GUEST, 0)):
        assert digest(handed_over.target) == before
        with pexpect.spawn(str(XEN2KVM), words, env={**os.environ}, timeout=60) as terminal:
            terminal.expect("gives up all that")
            terminal.expect("to give it up")
            terminal.sendline(said)
            terminal.expect(pexpect.EOF)
            terminal.wait()
            assert terminal.exitstatus == code
    assert on_target(handed_over, "xvda3") == handed_over.volumes["xvda3"].read_bytes()
    assert handed_over.step("sync").returncode == 0


def test_after_a_way_back_passes_go_on_and_a_new_cutover_marks_it_again(handed_over):
    handed_over.result("rollback", "--discard", "--yes")
    assert handed_over.step("sync").returncode == 0
    handed_over.result("cutover")
    shutil.rmtree(job_of(handed_over))
    assert handed_over.step("sync").returncode == REFUSED


def test_a_job_about_another_disk_or_another_guest_is_refused(planned_guest):
    planned_guest.result("sync")
    text = planned_guest.plan.read_text()
    planned_guest.plan.write_text(text.replace(str(planned_guest.target), f"{planned_guest.target}.other"))
    done = planned_guest.step("sync")
    assert done.returncode == REFUSED
    assert "is about" in done.stderr
    planned_guest.plan.write_text(text)
    planned_guest.result("cutover")
    planned_guest.plan.write_text(text.replace(f'name = "{GUEST}"', 'name = "another"'))
    for words in (("sync",), ("sync", "--again", "--yes")):
        done = planned_guest.step(*words)
        assert done.returncode == REFUSED
        assert f"is about {GUEST}" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("state.json", '{"format": 99, "target": "/t"}', "has format 99"),
        ("state.json", '{"target": "/t", "passes": -5}', "is damaged"),
        ("state.json", b'{"target": "\xff"}', "is damaged"),
        ("journal.json", b'{"guest": "\xff", "target": "/t"}', "is damaged"),
        ("lock", "not a number", "is not a lock of ours"),
    ],
)
def test_a_damaged_job_is_never_a_fresh_one(planned_guest, name, content, word):
    planned_guest.result("sync")
    (job_of(planned_guest) / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = digest(planned_guest.target)
    done = planned_guest.step("sync")
    assert done.returncode != 0
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert digest(planned_guest.target) == before


@pytest.mark.parametrize("name", ["lock", "state.json", "journal.json"])
def test_nothing_in_a_job_s_folder_is_followed_to_another_file(planned_guest, name):
    precious = planned_guest.folder / "precious"
    precious.write_text("precious")
    job_of(planned_guest).mkdir()
    (job_of(planned_guest) / name).symlink_to(precious)
    done = planned_guest.step("sync")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert precious.read_text() == "precious"
    assert not planned_guest.target.exists()


def test_a_job_s_folder_is_its_owner_s_alone(planned_guest):
    planned_guest.result("sync")
    planned_guest.result("cutover")
    for path in (job_of(planned_guest), *job_of(planned_guest).rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_job_s_folder_that_another_user_can_exchange_is_refused(planned_guest):
    theirs = planned_guest.folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    done = planned_guest.xen2kvm("sync", planned_guest.plan, f"--job-dir={theirs / 'job'}")
    assert done.returncode == REFUSED
    assert "belongs to the user 65534" in done.stderr
    assert list(theirs.iterdir()) == []


def test_a_folder_of_the_operator_s_is_not_closed_to_others(planned_guest):
    folder = planned_guest.folder / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "notes.digests").write_text("not a digest file")
    planned_guest.xen2kvm("sync", planned_guest.plan, f"--job-dir={folder}")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert (folder / "notes.digests").read_text() == "not a digest file"


@pytest.mark.parametrize("kind", ["other guest's image", "device", "link", "pipe", "folder"])
@pytest.mark.parametrize("option", ["-o", "--xml"])
def test_a_file_that_is_not_ours_is_never_replaced(planned_guest, option, kind):
    place, image = planned_guest.folder / "place", planned_guest.folder / "image"
    image.write_bytes(bytes(4096) + b"another guest")
    match kind:
        case "other guest's image":
            place.hardlink_to(image)
        case "device":
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        case "link":
            place.symlink_to(image)
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
    before = place.lstat()
    if option == "-o":
        done = planned_guest.make_plan("--force", f"-o{place}")
    else:
        planned_guest.result("sync")
        done = planned_guest.step("cutover", f"--xml={place}")
    assert done.returncode == USAGE, done.stderr
    assert (place.lstat().st_mode, place.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert image.read_bytes() == bytes(4096) + b"another guest"


def test_the_plan_and_the_target_are_never_one_file(small_guest):
    done = small_guest.make_plan(f"-o{small_guest.target}")
    assert done.returncode == USAGE
    assert not small_guest.target.exists()


def test_a_plan_is_replaced_by_force_and_the_domain_s_own_xml_by_another_cutover(planned_guest):
    assert planned_guest.make_plan("--force").returncode == 0
    planned_guest.result("sync")
    for _ in range(2):
        planned_guest.result("cutover", "--again", "--yes")
        uuid = subprocess.run(["grep", "-c", "<uuid>", planned_guest.plan.with_suffix(".xml")], check=False)
        assert uuid.returncode == 0
