"""The domain XML of each case is the golden file's, and libvirt's own schema accepts it.

After a wanted change: UPDATE_GOLDEN=1 pytest tests/orchestrate/kvm/test_domain.py, and read the diff.
"""

import os
import shutil
import stat
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from blocksync.errors import Usage
from orchestrate.kvm.domain import DomainNic, DomainSpec, domain_xml

GOLDEN = Path(__file__).parent / "golden"
IN_GOLDEN = "/var/lib/libvirt/images/disk"
BASE = DomainSpec(
    name="web",
    memory_mib=512,
    vcpus=1,
    disk=Path("file"),
    nics=(DomainNic("00:16:3E:12:34:56", "br0"),),
)
CASES = {
    "plain": BASE,
    "block": replace(BASE, disk=Path("block")),
    "emulated": replace(BASE, accel="qemu"),
    "i686": replace(BASE, arch="i686"),
    "localtime": replace(BASE, clock="localtime"),
    "no-virtio-ide": replace(BASE, disk_bus="ide", nic_model="e1000"),
    "sata": replace(BASE, disk_bus="sata"),
    "no-nic": replace(BASE, nics=()),
    "two-nics": replace(
        BASE, nics=(DomainNic("00:16:3e:12:34:56", "xenbr-dmz.12"), DomainNic("00:16:3e:12:34:57"))
    ),
    "larger": replace(BASE, memory_mib=16384, vcpus=8),
    "uuid": replace(BASE, uuid="6A0C5CB5-0D4F-4B2B-9B0A-3B2C7E1D9F00"),
    "logged": replace(BASE, console_log=Path("/var/lib/xen2kvm/web/consoles/kvm.log")),
    "escaped-name": replace(BASE, name="R&D <\"web\"> 'ü'"),
}


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    os.mknod(tmp_path / "block", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    return tmp_path


def rendered(case: str, disks: Path) -> str:
    spec = CASES[case]
    disk = disks / spec.disk
    return domain_xml(replace(spec, disk=disk)).replace(str(disk), IN_GOLDEN)


@pytest.mark.parametrize("case", CASES)
def test_domain_is_the_golden_file(case: str, disks: Path) -> None:
    golden = GOLDEN / f"{case}.xml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(rendered(case, disks))
    assert rendered(case, disks) == golden.read_text()


def test_each_golden_file_belongs_to_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.skipif(not shutil.which("virt-xml-validate"), reason="needs libvirt-clients")
@pytest.mark.parametrize("case", CASES)
def test_libvirts_schema_accepts_the_golden_file(case: str) -> None:
    command = ["virt-xml-validate", str(GOLDEN / f"{case}.xml"), "domain"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_field_is_varied_by_a_case() -> None:
    for spec_field in fields(DomainSpec):
        values = {getattr(spec, spec_field.name) for spec in CASES.values()}
        assert len(values) > 1, f"no case varies {spec_field.name}"
        choices = get_args(get_type_hints(DomainSpec)[spec_field.name])
        named = {choice for choice in choices if isinstance(choice, str)}
        assert named <= values, f"no case has {spec_field.name} {named - values}"
    for nic_field in fields(DomainNic):
        values = {getattr(nic, nic_field.name) for spec in CASES.values() for nic in spec.nics}
        assert len(values) > 1, f"no case varies the NIC's {nic_field.name}"


def test_names_and_paths_come_back_from_the_xml_unchanged(tmp_path: Path) -> None:
    name = "a&b<c>\"d\"'e'"
    disk = tmp_path / 'x&y<z>"q"'
    disk.touch()
    domain = ET.fromstring(domain_xml(replace(BASE, name=name, disk=disk)))
    source = domain.find("devices/disk/source")
    assert source is not None
    assert (domain.findtext("name"), source.get("file")) == (name, str(disk))


def test_a_link_to_a_block_device_stays_the_link(disks: Path) -> None:
    link = disks / "vg0-web"
    link.symlink_to(disks / "block")
    disk = ET.fromstring(domain_xml(replace(BASE, disk=link))).find("devices/disk")
    assert disk is not None
    source = disk.find("source")
    assert source is not None
    assert (disk.get("type"), source.get("dev")) == ("block", str(link))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "we\x00b"}, "U+0000"),
        ({"name": "we\nb"}, "U+000A"),
        ({"name": "we\udcffb"}, "U+DCFF"),
        ({"name": "we\uffffb"}, "U+FFFF"),
        ({"name": ""}, "empty"),
        ({"name": "a/b"}, "'/'"),
        ({"memory_mib": 0}, "memory in MiB is 0"),
        ({"vcpus": -1}, "vcpus is -1"),
        ({"nics": (DomainNic("00:16:3e:12:34"),)}, "no MAC address"),
        ({"nics": (DomainNic("01:16:3e:12:34:56"),)}, "multicast"),
        ({"nics": (DomainNic("00:16:3e:12:34:56", "br0; reboot"),)}, "no name of a bridge"),
        ({"nics": (DomainNic("00:16:3e:12:34:56", ""),)}, "no name of a bridge"),
        ({"uuid": "web"}, "uuid 'web'"),
    ],
)
def test_values_that_no_domain_can_have_are_refused(
    changes: dict[str, object], named: str, disks: Path
) -> None:
    with pytest.raises(Usage) as refused:
        domain_xml(replace(BASE, disk=disks / "file", **changes))  # type: ignore[arg-type]
    assert named in str(refused.value)


@pytest.mark.parametrize("disk", ["missing", ".", "/dev/null"])
def test_a_disk_that_is_no_disk_is_refused(disk: str, tmp_path: Path) -> None:
    with pytest.raises(Usage) as refused:
        domain_xml(replace(BASE, disk=tmp_path / disk))
    assert str(tmp_path / disk) in str(refused.value)
