"""A plan that people edited is read strictly: one clear error, or exactly what stands there."""

import os
from pathlib import Path

import pytest

from blocksync.errors import Usage
from orchestrate.plan import file

TEXT = (Path(__file__).parent / "golden" / "xen-tools.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("format = 1", "format = 2", "has format 2"),
        ("memory_mib = 512", 'memory_mib = "512"', r"Expected `int`, got `str`.*memory_mib"),
        ("memory_mib = 512", "memory_mib = 0", "1 or more"),
        ("vcpus = 2", "cpus = 2", "unknown field `cpus`"),
        ('name = "web1"', 'name = "../web1"', "cannot be a domain's name"),
        ('root = "xvda2"', 'root = "xvda9"', "no volume is 'xvda9'"),
        ('root = "xvda2"', 'root = "xvda1"', "root volume has to be copied"),
        ('expect = "login:"', 'expect = "("', "not a regular expression"),
        ('"quiet"', '"quiet;reboot"', "a character that GRUB gives a meaning"),
        ('name = "fstab"', 'name = "fstabs"', "'fstabs' is not one of"),
        ('mac = "00:16:3e:5e:ed:01"', 'mac = "00:16:3e:5e:ed"', "not a MAC address"),
        ("number = 1,", "number = 2,", "two partitions have the same number"),
        ("offset = 1048576,", "offset = 1048577,", "whole sectors"),
        ("offset = 1048576,", "offset = 1049088,", "overlap"),
        ("offset = 1048576,", "offset = -512,", "outside the disk"),
        ('device = "xvda1"', 'device = "xvda2"', "same device"),
        ('path = "/dev/vg0/web1-xvda2"', 'path = "/dev/vg1/web1"', "is the target itself"),
        ("[disk]", "[disk", "is not a plan"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named(old, new, cause):
    assert old in TEXT
    with pytest.raises(Usage, match=cause):
        file.parse(TEXT.replace(old, new, 1), "web1.toml")


def test_a_missing_plan_and_one_that_is_no_text_are_usage_errors(tmp_path):
    with pytest.raises(Usage, match="No such file"):
        file.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Usage, match="not UTF-8"):
        file.load(tmp_path / "binary.toml")


def test_a_fix_up_that_was_taken_out_stays_out():
    start = TEXT.index('[[fixup]]\nname = "fstab"')
    end = TEXT.index("[[fixup]]", start + 1)
    plan = file.parse(TEXT[:start] + TEXT[end:], "web1.toml")
    assert "fstab" not in {choice.name for choice in plan.fixup}
    assert plan.fixup


def test_a_plan_may_be_a_link_and_makes_nobody_wait(tmp_path):
    (tmp_path / "plan.toml").write_text(TEXT)
    (tmp_path / "link.toml").symlink_to("plan.toml")
    assert file.load(tmp_path / "link.toml") == file.load(tmp_path / "plan.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(Usage, match="is a pipe"):
        file.load(tmp_path / "pipe.toml")
