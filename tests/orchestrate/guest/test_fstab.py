from guest_files import DATA, FACTS, ROOT, SWAP, after, text

from orchestrate.guest.facts import Facts, GuestVolume
from orchestrate.guest.fixups.fstab import FstabEntry, mountpoints, volume_of

XEN_TOOLS = """
    # /etc/fstab: static file system information.
    #
    # <file system> <mount point>   <type>  <options>       <dump>  <pass>
    proc            /proc           proc    defaults        0       0
    devpts          /dev/pts        devpts  rw,noexec,nosuid,gid=5,mode=620 0  0
    /dev/xvda1 none swap sw 0 0
    /dev/xvda2 / ext3 noatime,nodiratime,errors=remount-ro 0 1
    /dev/xvda3\t/srv\txfs\tnoatime\t0\t2
"""


def fixed(fstab: str | bytes, facts: Facts = FACTS) -> str | None:
    return text(after("fstab", {"/etc/fstab": fstab}, facts), "/etc/fstab")


def test_xen_tools_lines_name_their_volumes_by_uuid_and_keep_everything_else():
    lines = (fixed(XEN_TOOLS) or "").splitlines()
    assert lines[3] == "proc            /proc           proc    defaults        0       0"
    assert lines[5:] == [
        f"UUID={SWAP.uuid} none swap sw 0 0",
        f"UUID={ROOT.uuid} / ext3 noatime,nodiratime,errors=remount-ro 0 1",
        f"UUID={DATA.uuid}\t/srv\txfs\tnoatime\t0\t2",
    ]


def test_names_that_last_stay():
    kept = (
        "LABEL=data /srv xfs defaults 0 2\nUUID=abc / ext4 defaults 0 1\nPARTUUID=12 /a ext4 defaults 0 0\n"
    )
    assert fixed(kept) == kept


def test_a_partition_s_uuid_names_the_root_and_the_one_swap_and_nothing_else():
    before = (
        "PARTUUID=0b0b0b0b-02 / ext4 defaults 0 1\n"
        "/dev/disk/by-partuuid/0b0b0b0b-01 none swap sw 0 0\n"
        "PARTUUID=0b0b0b0b-03 /srv xfs defaults 0 2\n"
    )
    assert fixed(before) == (
        f"UUID={ROOT.uuid} / ext4 defaults 0 1\n"
        f"UUID={SWAP.uuid} none swap sw 0 0\n"
        "PARTUUID=0b0b0b0b-03 /srv xfs defaults 0 2\n"
    )
    two_swaps = Facts((ROOT, SWAP, GuestVolume("xvda4", 4, "swap", "0404")), root_device="xvda2")
    line = "PARTUUID=0b0b0b0b-01 none swap sw 0 0\n"
    assert fixed(line, two_swaps) == line
    assert fixed(line.replace("none swap", "/ ext4"), Facts((ROOT,))) == line.replace("none swap", "/ ext4")


def test_older_spellings_of_the_same_device_are_the_same_volume():
    assert fixed("/dev/sda2 / ext3 defaults 0 1\n") == f"UUID={ROOT.uuid} / ext3 defaults 0 1\n"
    assert fixed("/dev/hda1 none swap sw 0 0\n") == f"UUID={SWAP.uuid} none swap sw 0 0\n"


def test_the_exact_name_wins_and_an_ambiguous_one_is_left_alone():
    other = GuestVolume("sda2", 4, "ext4", "0000")
    facts = Facts((ROOT, other))
    assert fixed("/dev/sda2 /b ext4 defaults 0 2\n", facts) == "UUID=0000 /b ext4 defaults 0 2\n"
    assert fixed("/dev/hda2 /c ext4 defaults 0 2\n", facts) == "/dev/hda2 /c ext4 defaults 0 2\n"


def test_a_volume_that_was_a_whole_disk_is_found():
    facts = Facts((GuestVolume("sdb", 2, "ext3", "0b0b"),))
    assert fixed("/dev/sdb /var ext3 defaults 0 2\n", facts) == "UUID=0b0b /var ext3 defaults 0 2\n"


def test_a_volume_without_uuid_is_named_by_label_then_by_partition():
    labelled = Facts((GuestVolume("xvda5", 5, "ext2", None, "old"),))
    bare = Facts((GuestVolume("xvda5", 5, "ext2"),))
    assert fixed("/dev/xvda5 /o ext2 defaults 0 0\n", labelled) == "LABEL=old /o ext2 defaults 0 0\n"
    assert fixed("/dev/xvda5 /o ext2 defaults 0 0\n", bare) == "/dev/vda5 /o ext2 defaults 0 0\n"


def test_cdrom_and_xenfs_lines_go_and_unknown_disks_stay():
    before = (
        "/dev/hdc /media/cdrom0 udf,iso9660 user,noauto 0 0\n"
        "none /proc/xen xenfs defaults 0 0\n"
        "/dev/xvdz9 /mnt ext4 noauto 0 0\n"
        "server:/export /net nfs defaults 0 0\n"
    )
    assert fixed(before) == "".join(before.splitlines(keepends=True)[2:])


def test_crlf_missing_last_newline_and_foreign_bytes_survive():
    before = b"# caf\xe9\r\n  /dev/xvda2\t/\text4 defaults 0 1\r\nproc /proc proc defaults 0 0"
    result = after("fstab", {"/etc/fstab": before}).read("/etc/fstab")
    assert result == before.replace(b"/dev/xvda2", f"UUID={ROOT.uuid}".encode())


def test_a_guest_without_fstab_gets_none():
    assert fixed("") == ""
    assert after("fstab", {}).read("/etc/fstab") is None


def test_entries_are_read_with_escapes_and_defaults():
    entries = mountpoints(
        b"# c\n\n/dev/xvda3 /srv/my\\040data xfs\nLABEL=root / ext4 ro,noatime 1 1\nshort line\n"
    )
    assert entries == (
        FstabEntry("/dev/xvda3", "/srv/my data", "xfs", ("defaults",), "0", "0"),
        FstabEntry("LABEL=root", "/", "ext4", ("ro", "noatime"), "1", "1"),
    )
    assert [volume_of(entry, FACTS) for entry in entries] == [DATA, ROOT]


def test_every_spelling_of_a_volume_is_found():
    spellings = (
        "/dev/xvda2",
        "/dev/hda2",
        f"UUID={ROOT.uuid}",
        'LABEL="root"',
        f"/dev/disk/by-uuid/{ROOT.uuid}",
        "/dev/disk/by-label/root",
    )
    for spelling in spellings:
        (entry,) = mountpoints(f"{spelling} / ext4\n".encode())
        assert volume_of(entry, FACTS) == ROOT, spelling
    for spelling in ("UUID=", "LABEL=", "proc", "/dev/mapper/x", "/dev/xvdq1"):
        (entry,) = mountpoints(f"{spelling} / ext4\n".encode())
        assert volume_of(entry, FACTS) is None, spelling
