"""Every text and number of a plan is what it has to be, wherever it comes from, and none becomes a key."""

import re
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings

from blocksync.errors import Usage
from orchestrate.plan import file
from orchestrate.plan.model import Check, Plan

TEXT = (Path(__file__).parent / "golden" / "xen-tools.toml").read_text()
PLAN = file.parse(TEXT, "web1.toml")


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('"xvda2"', '"../victim/x"', "the guest's name for it"),
        ('"xvda2"', '"/victim"', "the guest's name for it"),
        ('"xvda2"', '"xv\\u0000da2"', "cannot be printed"),
        ('"xvda2"', '"51714"', "the guest's name for it"),
        ('"xvda2"', '"XVDA2"', "the guest's name for it"),
        ('"xvda2"', '".."', "the guest's name for it"),
        ("format = 1\n", 'format = 1\nxen_host = "evil/x"\n', "xen_host"),
        ("format = 1\n", 'format = 1\nxen_host = "evil:22/x"\n', "xen_host"),
        ("format = 1\n", 'format = 1\nxen_host = "evil:99999"\n', "xen_host|port"),
        ("format = 1\n", 'format = 1\nxen_host = ""\n', "xen_host|host name"),
        ("format = 1\n", 'format = 1\nconfig = "web1.cfg"\n', "config: .* absolute"),
        ("size = 1048064}", "size = 0}", "boot_area: its size is above 0"),
        ("memory_mib = 512", f"memory_mib = {2**63}", "memory_mib"),
        ("memory_mib = 512", f"memory_mib = {2**200}", "is not a plan|memory_mib"),
        ("vcpus = 2", "vcpus = 100000", "vcpus"),
        ("offset = 1048576,", f"offset = {2**64},", "larger than any size|is not a plan"),
        ('path = "/dev/vg1/web1"', 'path = "web1.img"', "disk.path: .* absolute"),
        ('path = "/dev/vg0/web1-xvda2"', 'path = "web1"', "not absolute"),
        ('path = "/dev/vg0/web1-xvda2"', 'path = "/dev/\\nvg0"', "cannot be printed"),
        ('filesystem = "ext4"', 'filesystem = "ext4;x"', "none that blkid names"),
        ('mountpoint = "/"', 'mountpoint = "/srv/../etc"', "mountpoint"),
        ('mountpoint = "/"', 'mountpoint = "srv"', "mountpoint"),
        ('mountpoint = "/"', 'mountpoint = "//srv"', "mountpoint"),
        ('mountpoint = "/"', 'mountpoint = "/srv/"', "mountpoint"),
        ('mountpoint = "/"', 'mountpoint = "/\\u001b[2J"', "cannot be printed"),
        ('label = "xvda2"', 'label = "\\u202egnp"', "cannot be printed"),
        ('bridge = "', 'bridge = "[/x]', "no bridge's name"),
        ('bridge = "', 'bridge = "-', "no bridge's name"),
        ('expect = "login:"', 'expect = "a\\u009b"', "cannot be printed"),
        ('"quiet"', '"qui\u00ebt"', "a character that GRUB gives a meaning"),
        ('kernels = ["', 'kernels = ["$(x)', "no kernel's version"),
    ],
)
def test_what_a_plan_cannot_mean_is_named(old, new, cause):
    assert old in TEXT, old
    with pytest.raises(Usage, match=cause):
        file.parse(TEXT.replace(old, new), "web1.toml")


@pytest.mark.parametrize(
    "uuid",
    [
        "x;insmod${evil}{",
        "a b",
        "-x",
        "'",
        "00000000-0000-4000-8000-00000000000",
        "1234-ABCD",
        "",
        "é",
        "a" * 99,
    ],
)
def test_a_uuid_in_a_plan_is_one_of_its_file_system(uuid):
    changed = re.sub(r'uuid = "[^"]*1"', f"uuid = '{uuid}'" if "'" not in uuid else f'uuid = "{uuid}"', TEXT)
    assert changed != TEXT
    with pytest.raises(Usage, match="uuid"):
        file.parse(changed, "web1.toml")


def test_what_is_there_twice_and_may_be_once_is_named():
    uuids = re.findall(r'uuid = "[^"]*"', TEXT)
    with pytest.raises(Usage, match=r"uuid: .* is there 2 times"):
        file.parse(TEXT.replace(uuids[0], uuids[1]), "web1.toml")
    fixup = TEXT[TEXT.index("[[fixup]]") :]
    with pytest.raises(Usage, match=r"fixup: .* is there 2 times"):
        file.parse(TEXT + "\n" + fixup, "web1.toml")
    nic = TEXT[TEXT.index("[[nic]]") : TEXT.index("[[fixup]]")].rpartition("#")[0]
    with pytest.raises(Usage, match=r"nic: .* is there 2 times"):
        file.parse(TEXT + "\n" + nic, "web1.toml")


def test_a_script_of_several_lines_may_be_a_check():
    plan = msgspec.structs.replace(PLAN, check=(Check(command=("sh", "-c", "true\nfalse\n")),))
    assert file.parse(file.dump(plan), "web1.toml") == plan


HOSTILE = "x\ncheck = [{command = ['/bin/sh','-c','id']}]\n# "
ENDS = [
    "\n",
    "\r",
    "\r\n",
    "\v",
    "\f",
    "\x1b[2J",
    "\x85",
    "\u2028",
    "\u2029",
    "\0",
    "\x7f",
    "\ud800",
    "\udcff",
]


@pytest.mark.parametrize("warning", [HOSTILE, *(HOSTILE.replace("\n", end) for end in ENDS), "x" * 10**6])
@pytest.mark.parametrize("old", [False, True])
def test_a_warning_stays_a_comment_whatever_is_in_it(monkeypatch, warning, old):
    if old:
        # As up to 0.15.0.
        trivia = tomlkit.items.Trivia
        monkeypatch.setattr(
            tomlkit, "comment", lambda text: tomlkit.items.Comment(trivia("", "", f"# {text}"))
        )
    text = file.dump(PLAN, (warning,))
    assert file.parse(text, "web1.toml") == PLAN
    assert len(text) < 20_000
    assert all(line.isprintable() for line in text.split("\n"))


def strings(value: object, place: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Where the strings of a plan are."""
    if isinstance(value, str):
        return [place]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in strings(inner, (*place, key))]


BUILTINS = msgspec.json.decode(msgspec.json.encode(PLAN))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(strings(BUILTINS)), st.text(st.characters(), max_size=12), st.text(max_size=40))
def test_what_is_written_is_read_back_equal_or_refused(place, text, warning):
    fields = msgspec.json.decode(msgspec.json.encode(PLAN))
    inside = fields
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = text
    try:
        plan = msgspec.convert(fields, Plan)
    except msgspec.ValidationError:
        return
    try:
        written = file.dump(plan, (warning,))
    except Usage:
        return
    assert file.parse(written.encode().decode(), "web1.toml") == plan
