"""Against a real libvirtd; domains are of type qemu and boot a sector that prints a login prompt."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from boot_sectors import printing

from blocksync.errors import Failed
from orchestrate.kvm.domain import DomainSpec, domain_xml
from orchestrate.kvm.libvirt import DiskUse, Libvirt, LibvirtUnreachable, default_uri

pytestmark = pytest.mark.boots


@pytest.fixture
def images() -> Iterator[Path]:
    """A folder that QEMU's own user can reach (pytest's is root's alone)."""
    with tempfile.TemporaryDirectory(prefix="x2k-images-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def spec(images: Path) -> DomainSpec:
    disk = images / "web.img"
    disk.write_bytes(printing("web login: ").ljust(1 << 20, b"\0"))
    # A name of digits: virsh alone would take it for a domain's number.
    return DomainSpec(name=f"{os.getpid()}", memory_mib=64, vcpus=1, disk=disk, accel="qemu")


@pytest.fixture
def libvirt(libvirt_uri: str, spec: DomainSpec) -> Iterator[Libvirt]:
    yield Libvirt(libvirt_uri)
    for name in (spec.name, f"{spec.name}-other"):
        for command in ("destroy", "undefine"):
            subprocess.run(["virsh", "-c", libvirt_uri, command, name], capture_output=True, check=False)


def test_a_domain_is_defined_and_started(libvirt: Libvirt, spec: DomainSpec) -> None:
    assert not libvirt.is_defined(spec.name)
    libvirt.define(domain_xml(spec))
    assert libvirt.is_defined(spec.name)
    assert libvirt.state(spec.name) == "shut off"
    libvirt.start(spec.name)
    assert libvirt.state(spec.name) == "running"


@pytest.mark.parametrize("link", [False, True])
def test_a_disk_is_found_in_stopped_and_running_domains(
    link: bool, libvirt: Libvirt, spec: DomainSpec, images: Path
) -> None:
    asked = spec.disk
    if link:
        asked = images / "link"
        asked.symlink_to(spec.disk)
    assert libvirt.domains_using(asked) == ()
    libvirt.define(domain_xml(spec))
    (stopped,) = libvirt.domains_using(asked)
    assert stopped == DiskUse(spec.name, "shut off", str(spec.disk))
    assert not stopped.running
    libvirt.start(spec.name)
    (started,) = libvirt.domains_using(asked)
    assert (started.state, started.running) == ("running", True)


def test_all_domains_of_a_disk_are_named(libvirt: Libvirt, spec: DomainSpec) -> None:
    libvirt.define(domain_xml(spec))
    libvirt.define(domain_xml(replace(spec, name=f"{spec.name}-other")))
    assert [use.domain for use in libvirt.domains_using(spec.disk)] == [spec.name, f"{spec.name}-other"]


def test_a_block_device_is_found_under_another_name(libvirt: Libvirt, spec: DomainSpec, images: Path) -> None:
    attach = ["losetup", "--find", "--show", spec.disk]
    device = Path(subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip())
    try:
        alias = images / "mapper-web"
        os.mknod(alias, 0o60600, device.stat().st_rdev)
        libvirt.define(domain_xml(replace(spec, disk=device)))
        assert [use.source for use in libvirt.domains_using(alias)] == [str(device)]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_disk_below_another_is_found(libvirt: Libvirt, spec: DomainSpec, images: Path) -> None:
    upper = images / "upper.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", spec.disk, upper]
    subprocess.run(create, check=True)
    xml = domain_xml(replace(spec, disk=upper)).replace('type="raw"', 'type="qcow2"')
    libvirt.define(xml)
    libvirt.start(spec.name)
    assert [use.source for use in libvirt.domains_using(spec.disk)] == [str(spec.disk)]


def test_a_disk_out_of_a_storage_pool_is_found(libvirt: Libvirt, spec: DomainSpec, images: Path) -> None:
    pool = f"x2k-{spec.name}"
    virsh = ["virsh", "-q", "-c", libvirt.uri]
    subprocess.run([*virsh, "pool-create-as", pool, "dir", "--target", images], check=True)
    try:
        source = f'<source pool="{pool}" volume="{spec.disk.name}"/>'
        xml = domain_xml(spec).replace(f'<source file="{spec.disk}" />', source)
        libvirt.define(xml.replace('disk type="file"', 'disk type="volume"'))
        assert [use.source for use in libvirt.domains_using(spec.disk)] == [str(spec.disk)]
    finally:
        subprocess.run([*virsh, "pool-destroy", pool], check=True)
    with pytest.raises(Failed, match=f"pool-start {pool}"):
        libvirt.domains_using(spec.disk)


def test_xml_that_breaks_the_schema_is_refused(libvirt: Libvirt, spec: DomainSpec) -> None:
    with pytest.raises(Failed, match="virsh define"):
        libvirt.define(domain_xml(spec).replace("<on_crash>destroy", "<on_crash>explode"))
    assert not libvirt.is_defined(spec.name)


def test_a_domain_that_is_not_there_is_named(libvirt: Libvirt) -> None:
    for call in (libvirt.state, libvirt.start):
        with pytest.raises(Failed, match="domain nobody: not defined"):
            call("nobody")


@pytest.mark.skipif(not shutil.which("virsh"), reason="needs libvirt-clients")
def test_a_daemon_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    silent = Libvirt(f"qemu+unix:///system?socket={tmp_path}/none")
    with pytest.raises(LibvirtUnreachable, match="systemctl start libvirtd"):
        silent.is_defined("web")


def test_a_host_without_virsh_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LibvirtUnreachable, match="apt-get install libvirt-clients"):
        Libvirt().is_defined("web")


def test_the_uri_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    assert (default_uri(), Libvirt().uri) == ("test:///default", "test:///default")
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI")
    assert Libvirt().uri == "qemu:///system"


def test_a_domain_that_libvirt_does_not_take_is_found(libvirt: Libvirt, spec: DomainSpec) -> None:
    good = domain_xml(spec)
    libvirt.check(good)
    assert not libvirt.is_defined(spec.name)
    for word, other in (('machine="pc"', 'machine="pcx"'), ('bus="virtio"', 'bus="nobus"'), (">64<", ">x<")):
        assert word in good
        with pytest.raises(Failed, match="virsh domxml-to-native"):
            libvirt.check(good.replace(word, other))
    assert not libvirt.is_defined(spec.name)
