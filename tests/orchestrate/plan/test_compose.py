"""Plans are pure: the same findings give the golden file, for each kind of guest.

After a wanted change: UPDATE_GOLDEN=1 pytest tests/orchestrate/plan, and read the diff.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from guest_files import Files

from blocksync.errors import Refused, Usage
from orchestrate.guest.volumes import VolumeContent
from orchestrate.layout.table import TableKind
from orchestrate.plan import file
from orchestrate.plan.compose import FoundVolume, Wishes, compose, refuse_twins, refuse_unfit
from orchestrate.plan.root import find
from orchestrate.xen.guest import read_guest

GOLDEN = Path(__file__).parent / "golden"
GIB = 2**30
KERNEL: Mapping[str, str | bytes] = {
    "/etc/debian_version": "12.1\n",
    "/boot/vmlinuz-6.1.0-9-amd64": b"",
    "/boot/initrd.img-6.1.0-9-amd64": b"",
}
CONFIG = """\
name = 'web1'
memory = 512
vcpus = 2
root = '{root} ro'
extra = 'console=hvc0 quiet elevator=noop'
disk = [{disks}]
vif = ['ip=192.0.2.10 ,mac=00:16:3E:5E:ED:01,bridge=xenbr0', 'bridge=xenbr1']
"""


@dataclass(frozen=True)
class Case:
    """Volumes as device, size in bytes and file system; the guest's own files besides a kernel."""

    volumes: tuple[tuple[str, int, str | None], ...]
    root: str
    files: Mapping[str, str] = field(default_factory=dict)
    wishes: Mapping[str, object] = field(default_factory=dict)


XEN_TOOLS = (("xvda2", 10 * GIB, "ext4"), ("xvda1", GIB, "swap"), ("xvda3", 4 * GIB, "xfs"))
FSTAB = "/dev/xvda1 none swap sw 0 0\n/dev/xvda2 / ext4 noatime 0 1\n/dev/xvda3 /srv xfs defaults 0 2\n"
CASES = {
    "xen-tools": Case(XEN_TOOLS, "/dev/xvda2", {"/etc/fstab": FSTAB, "/etc/securetty": "hvc0\n"}),
    "addresses-of-its-own": Case(
        XEN_TOOLS,
        "/dev/xvda2",
        {
            "/etc/fstab": FSTAB,
            "/etc/network/interfaces": "iface eth0 inet static\n  address 192.0.2.10/24\n"
            "iface eth0:1 inet static\n  address 192.0.2.11/24\niface eth1 inet6 static\n"
            "  address 2001:db8::7/64\n",
        },
    ),
    "selinux-and-partition-uuids": Case(
        XEN_TOOLS,
        "/dev/xvda2",
        {
            "/etc/fstab": "PARTUUID=0b0b0b0b-02 / ext4 defaults 0 1\nPARTUUID=0b0b0b0b-01 none swap sw 0 0\n",
            "/etc/selinux/config": "SELINUX=enforcing\n",
            "/etc/default/grub": 'GRUB_CMDLINE_LINUX="resume=PARTUUID=0b0b0b0b-01"\n',
        },
    ),
    "dos-compatible": Case(XEN_TOOLS, "/dev/xvda2", {"/etc/fstab": FSTAB}, {"first_sector": 63}),
    "existing-target": Case(XEN_TOOLS, "/dev/xvda2", {"/etc/fstab": FSTAB}, {"disk_size": 20 * GIB}),
    "gpt": Case(XEN_TOOLS, "/dev/xvda2", {"/etc/fstab": FSTAB}, {"table": TableKind.GPT}),
    "own-boot-of-five": Case(
        (
            ("sda1", GIB // 4, "ext3"),
            ("sda2", 4 * GIB, "ext3"),
            ("sda3", GIB, "swap"),
            ("sda5", 8 * GIB, "ext3"),
            ("sdb1", 2 * GIB, "LVM2_member"),
        ),
        "/dev/sda2",
        {"/etc/fstab": "/dev/hda1 /boot ext3 defaults 0 2\nLABEL=sda5 /home ext3 defaults 0 2\n"},
    ),
    "disks-without-partitions": Case(
        (("sda", 4 * GIB, "ext3"), ("sdb", 2 * GIB, "ext3"), ("sdc", GIB, "swap")),
        "/dev/sda",
        {"/etc/fstab": "/dev/sda / ext3 defaults 0 1\n/dev/sdb /var ext3 defaults 0 2\n"},
    ),
}


def found(case: Case) -> list[FoundVolume]:
    return [
        FoundVolume(
            device=device,
            source=f"/dev/vg0/web1-{device}",
            path=f"/dev/vg0/web1-{device}",
            size=size,
            signature=VolumeContent(
                filesystem=filesystem,
                uuid=f"00000000-0000-4000-8000-{index:012d}" if filesystem else None,
                label=device,
            ),
        )
        for index, (device, size, filesystem) in enumerate(case.volumes)
    ]


def rendered(case: Case, folder: Path) -> str:
    config = folder / "web1.cfg"
    disks = ", ".join(f"'phy:vg0/web1-{device},{device},w'" for device, _, _ in case.volumes)
    config.write_text(CONFIG.format(root=case.root, disks=disks))
    volumes = found(case)
    xen = read_guest(config)
    reading = Files({**KERNEL, **case.files})
    plan, warnings = compose(
        xen,
        volumes,
        Wishes(disk="/dev/vg1/web1", **case.wishes),  # type: ignore[arg-type]
        root=find(xen, volumes, lambda _: reading).device,
        reading=reading,
    )
    return file.dump(plan, warnings).replace(str(folder), "FOLDER")


@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_the_golden_file(case, tmp_path):
    golden = GOLDEN / f"{case}.toml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(rendered(CASES[case], tmp_path))
    assert rendered(CASES[case], tmp_path) == golden.read_text()


def test_each_golden_file_belongs_to_a_case():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_golden_plan_is_read_back_as_it_was_written(case):
    text = (GOLDEN / f"{case}.toml").read_text()
    plan = file.parse(text, case)
    assert file.parse(file.dump(plan), case) == plan


@pytest.mark.parametrize(
    ("signature", "guard"),
    [(VolumeContent(), "unknown-filesystem"), (VolumeContent(table="dos"), "whole-disk")],
)
def test_a_volume_that_is_no_file_system_is_refused_by_name(signature, guard):
    volume = FoundVolume(
        device="xvda2", source="/dev/vg0/x", path="/dev/vg0/x", size=GIB, signature=signature
    )
    with pytest.raises(Refused, match=r"/dev/vg0/x \(xvda2\)") as refused:
        refuse_unfit([volume], frozenset())
    assert refused.value.guard == guard


def test_unknown_bytes_are_copied_if_the_operator_says_so():
    volume = FoundVolume(
        device="xvda2", source="/dev/vg0/x", path="/dev/vg0/x", size=GIB, signature=VolumeContent()
    )
    refuse_unfit([volume], frozenset({"unknown-filesystem"}))


def test_an_override_that_no_plan_knows_is_named():
    with pytest.raises(Usage, match="--override mounted"):
        refuse_unfit([], frozenset({"mounted"}))


UUID = "00000000-0000-4000-8000-000000000001"


def volume(
    device: str, filesystem: str = "ext4", uuid: str | None = UUID, member: str | None = None
) -> FoundVolume:
    signature = VolumeContent(filesystem=filesystem, uuid=uuid, member=member)
    return FoundVolume(
        device=device, source=f"/dev/vg0/{device}", path=f"/dev/vg0/{device}", size=GIB, signature=signature
    )


@pytest.mark.parametrize(
    ("filesystem", "way_out"),
    [
        ("ext4", "tune2fs -U random /dev/vg0/xvda3"),
        ("xfs", "xfs_admin -U generate /dev/vg0/xvda3"),
        ("btrfs", "btrfstune -u /dev/vg0/xvda3"),
        ("swap", "swaplabel -U"),
        ("crypto_LUKS", "another UUID"),
    ],
)
def test_two_volumes_of_one_uuid_are_refused_with_the_way_out(filesystem, way_out):
    twins = [volume("xvda2"), volume("xvda3", filesystem, UUID.upper())]
    with pytest.raises(Refused, match="one is a copy") as refused:
        refuse_twins(twins)
    assert refused.value.guard == "uuid-twice"
    assert way_out in refused.value.way_out


def test_the_volumes_of_one_file_system_share_its_uuid_and_are_no_twins():
    refuse_twins([volume("xvda2", "btrfs", member="a"), volume("xvda3", "btrfs", member="b")])
    refuse_twins([volume("xvda2", uuid=None), volume("xvda3", uuid=None)])
    with pytest.raises(Refused):
        refuse_twins([volume("xvda2", "btrfs", member="a"), volume("xvda3", "btrfs", member="a")])


@pytest.mark.parametrize(
    ("written", "mountpoint"),
    [
        ("/srv/", "/srv"),
        ("//srv//data", "/srv/data"),
        ("/srv/./data", "/srv/data"),
        (r"/with\040blank", "/with blank"),
        ("/[/x]", "/[/x]"),
        (r"/srv\033]0;PWNED\007", None),
        (r"/srv\012x", None),
        (r"/srv\000x", None),
        ("/srv/../etc", None),
        (r"/\342\200\256", None),
    ],
)
def test_a_mount_point_of_fstab_is_plain_or_none_with_a_warning(tmp_path, written, mountpoint):
    (tmp_path / "web1.cfg").write_text(
        CONFIG.format(root="/dev/xvda2", disks="'phy:vg0/a,xvda2,w','phy:vg0/b,xvda3,w'")
    )
    found = [volume("xvda2"), volume("xvda3", uuid=None)]
    fstab = f"/dev/xvda2 / ext4 defaults 0 1\n/dev/xvda3 {written} ext4 defaults 0 2\n"
    xen, reading = read_guest(tmp_path / "web1.cfg"), Files({**KERNEL, "/etc/fstab": fstab})
    plan, warnings = compose(xen, found, Wishes(disk="/dev/vg1/web1"), root="xvda2", reading=reading)
    assert file.parse(file.dump(plan, warnings), "web1.toml").volume[1].mountpoint == mountpoint
    said = [each for each in warnings if "/etc/fstab" in each]
    assert bool(said) is (mountpoint is None)
    assert all(each.isprintable() for each in said)
