"""grub.cfg and the boot code, judged by GRUB's own tools where they can."""

import subprocess
from pathlib import Path

import pytest
from guest_files import Files

from blocksync.errors import Failed, Refused
from orchestrate.guest.boot import grub, grub_image
from orchestrate.guest.boot.grub import Booting
from orchestrate.guest.boot.kernels import Kernel
from orchestrate.guest.files.edit import Edited
from orchestrate.layout import boot_code
from orchestrate.layout.table import MIB, BootArea

ROOT, BOOT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa"
ONE_VOLUME = Booting(
    root_uuid=ROOT, boot_uuid=ROOT, boot_prefix="/boot", arguments=("console=ttyS0,115200n8",), title="web1"
)
OWN_BOOT = Booting(root_uuid=ROOT, boot_uuid=BOOT, boot_prefix="", arguments=())
KERNELS = (
    Kernel("6.1.0-10-amd64", "/boot/vmlinuz-6.1.0-10-amd64", "/boot/initrd.img-6.1.0-10-amd64"),
    Kernel("6.1.0-9-amd64", "/boot/vmlinuz-6.1.0-9-amd64", None),
)


def test_grub_cfg_has_an_entry_for_each_kernel_with_root_by_uuid_and_the_arguments():
    text = grub.config(ONE_VOLUME, KERNELS)
    assert f"linux /boot/vmlinuz-6.1.0-10-amd64 root=UUID={ROOT} ro console=ttyS0,115200n8\n" in text
    assert "initrd /boot/initrd.img-6.1.0-10-amd64\n" in text
    assert text.count("menuentry ") == 2
    assert text.count("initrd ") == 1


def test_with_boot_on_a_volume_of_its_own_paths_are_relative_to_it_and_root_is_the_other():
    text = grub.config(OWN_BOOT, KERNELS)
    assert f"--set=root {BOOT}" in text
    assert f"linux /vmlinuz-6.1.0-10-amd64 root=UUID={ROOT} ro\n" in text
    assert "set prefix=($root)/grub" in grub.early_config(OWN_BOOT)


@pytest.mark.parametrize("booting", [ONE_VOLUME, OWN_BOOT])
def test_grub_accepts_the_configuration(booting, tmp_path):
    config = tmp_path / "grub.cfg"
    config.write_text(grub.config(booting, KERNELS))
    subprocess.run(["grub-script-check", str(config)], check=True)


def test_a_second_planning_over_the_result_changes_nothing():
    guest, modules = Files({}), {"normal.mod": b"m"}
    edits = grub.edits(guest, ONE_VOLUME, KERNELS, modules)
    assert {edit.path for edit in edits} == {"/boot/grub/grub.cfg", "/boot/grub/i386-pc/normal.mod"}
    assert grub.edits(Edited(guest, edits), ONE_VOLUME, KERNELS, modules) == ()


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_the_core_image_fits_every_boot_area_and_points_to_itself(filesystem):
    image = grub_image.make(grub.early_config(ONE_VOLUME), filesystem)
    for area in (BootArea(offset=512, size=MIB - 512), BootArea(offset=700 * MIB, size=MIB)):
        (core_at, core), (boot_at, boot) = boot_code.place(image.boot, image.core, area)
        assert (core_at, boot_at, len(boot)) == (area.offset, 0, 440)
        assert int.from_bytes(boot[0x5C:0x64], "little") * 512 == area.offset
        assert int.from_bytes(core[0x1F4:0x1FC], "little") * 512 == area.offset + 512
        assert (int.from_bytes(core[0x1FC:0x1FE], "little") + 1) * 512 == len(core)


def test_a_boot_area_that_is_too_small_is_refused():
    with pytest.raises(Refused, match="GRUB needs 600 bytes, 512 are free"):
        boot_code.place(bytes(512), bytes(600), BootArea(offset=512, size=1024))


def test_a_file_system_that_grub_is_not_set_up_for_is_refused():
    with pytest.raises(Refused, match="jfs"):
        grub_image.make("", "jfs")


def test_the_modules_come_with_the_lists_that_name_grubs_commands():
    names = set(grub_image.modules())
    assert {"normal.mod", "linux.mod", "command.lst", "moddep.lst"} <= names
    assert all(Path(name).suffix in {".mod", ".lst"} for name in names)


HOSTILE = [
    "$root",
    "a;reboot",
    "a b",
    "{x}",
    "it's",
    '"',
    "a\\b",
    "é",
    "#x",
    "$(x)",
    "a|b&c<d>e",
    "`",
    "",
    "!",
    "'" * 5,
]


@pytest.mark.parametrize("word", HOSTILE)
def test_grub_reads_every_word_back_as_it_is_and_nothing_more(word, tmp_path):
    booting = Booting(root_uuid=word, boot_uuid=word, boot_prefix=word, arguments=(word,), title=word)
    kernel = Kernel(word, f"/boot/{word}", f"/boot/{word}")
    script = tmp_path / "grub.cfg"
    script.write_text(grub.config(booting, [kernel]) + grub.early_config(booting))
    subprocess.run(["grub-script-check", str(script)], check=True)
    # What GRUB and sh say of single quotes is the same.
    line = f"printf %s {grub.quoted(word)}"
    assert subprocess.run(["sh", "-c", line], check=True, capture_output=True).stdout.decode() == word


@pytest.mark.parametrize("word", ["a\nreboot", "a\r", "\x1b", "\0", "\u2028", "\udce4"])
def test_what_no_quotes_hold_is_not_written_for_grub(word):
    with pytest.raises(Failed, match="cannot be written into"):
        grub.quoted(word)
