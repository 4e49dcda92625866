"""Which kernels count as bootable under KVM."""

import pytest
from guest_files import Files

from blocksync.errors import Refused
from orchestrate.guest.boot.kernels import Kernel, bootable, require, version_key

MODULAR = "# config\nCONFIG_VIRTIO_BLK=m\n"
BUILT_IN = "# config\nCONFIG_VIRTIO_BLK=y\n"


def versions(files: dict[str, str | bytes]) -> list[str]:
    return [kernel.version for kernel in bootable(Files(files))]


def test_a_debian_kernel_is_found_with_its_initramfs():
    files = {
        "/boot/vmlinuz-6.1.0-9-amd64": b"",
        "/boot/initrd.img-6.1.0-9-amd64": b"",
        "/boot/config-6.1.0-9-amd64": MODULAR,
    }
    expected = Kernel("6.1.0-9-amd64", "/boot/vmlinuz-6.1.0-9-amd64", "/boot/initrd.img-6.1.0-9-amd64")
    assert bootable(Files(files)) == (expected,)


def test_the_newest_kernel_comes_first_as_people_count():
    files: dict[str, str | bytes] = {}
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64", "5.10.0-30-amd64"):
        files |= {f"/boot/vmlinuz-{version}": b"", f"/boot/initrd.img-{version}": b""}
    assert versions(files) == ["6.1.0-10-amd64", "6.1.0-9-amd64", "5.10.0-30-amd64"]


def test_a_release_candidate_comes_before_its_release():
    assert version_key("6.1-rc1-amd64") < version_key("6.1-amd64")


@pytest.mark.parametrize(
    ("config", "initrd", "boots"),
    [
        (MODULAR, True, True),
        (MODULAR, False, False),
        (BUILT_IN, False, True),
        ("# config\nCONFIG_X86_64_XEN=y\nCONFIG_VIRTIO_BLK=y\n", True, False),
        ("# config\nCONFIG_X86_XEN=y\nCONFIG_VIRTIO_BLK=m\n", True, False),
        ("# config\nCONFIG_XEN=y\nCONFIG_VIRTIO_BLK=m\n", True, True),
        ("# config\n# CONFIG_VIRTIO_BLK is not set\n", True, False),
    ],
)
def test_a_kernel_boots_if_it_is_not_xens_alone_and_can_reach_virtio(config, initrd, boots):
    files: dict[str, str | bytes] = {"/boot/vmlinuz-3.2.0-4": b"", "/boot/config-3.2.0-4": config}
    if initrd:
        files["/boot/initrd.img-3.2.0-4"] = b""
    assert bool(versions(files)) is boots


@pytest.mark.parametrize(
    "version", ["2.6.26-2-xen-amd64", "2.6.18-6-xen-686", "2.6.18-194.el5xen", "2.6.18-xenU"]
)
def test_without_a_config_the_name_tells_a_xen_kernel(version):
    assert versions({f"/boot/vmlinuz-{version}": b"", f"/boot/initrd.img-{version}": b""}) == []


def test_red_hats_names_of_the_initramfs_are_known():
    files = {"/boot/vmlinuz-3.10.0-1160.el7": b"", "/boot/initramfs-3.10.0-1160.el7.img": b""}
    assert bootable(Files(files))[0].initrd == "/boot/initramfs-3.10.0-1160.el7.img"


@pytest.mark.parametrize("name", ["vmlinuz-0-rescue-abc", "vmlinuz-6.1.0.old", "vmlinuz-6.1.0.dpkg-bak"])
def test_rescue_and_backup_copies_are_no_kernels(name):
    version = name.removeprefix("vmlinuz-")
    assert versions({f"/boot/{name}": b"", f"/boot/initrd.img-{version}": b""}) == []


@pytest.mark.parametrize(
    ("release", "command"),
    [("/etc/debian_version", "apt-get install linux-image"), ("/etc/redhat-release", "yum install kernel")],
)
def test_a_guest_without_a_kernel_is_refused_with_its_distributions_command(release, command):
    with pytest.raises(Refused, match=command) as refused:
        require(Files({release: "x\n"}), "web1")
    assert refused.value.guard == "no-kernel"
    assert "web1" in refused.value.thing


def test_a_guest_with_only_a_xen_kernel_is_told_which_one_did_not_count():
    files = {"/boot/vmlinuz-2.6.26-2-xen-amd64": b"", "/boot/initrd.img-2.6.26-2-xen-amd64": b""}
    with pytest.raises(Refused, match="2-xen-amd64: for Xen only"):
        require(Files(files), "web1")


@pytest.mark.parametrize(
    ("image", "initrd", "version"),
    [
        ("vmlinuz-2.6.18-348.el5", "initrd-2.6.18-348.el5.img", "2.6.18-348.el5"),
        ("vmlinuz-3.0.101-63-default", "initrd-3.0.101-63-default", "3.0.101-63-default"),
        ("vmlinuz-linux-lts", "initramfs-linux-lts.img", "linux-lts"),
        ("vmlinuz-linux", "initramfs-linux-fallback.img", "linux"),
        ("vmlinuz-virt", "initramfs-virt", "virt"),
        (
            "kernel-genkernel-x86_64-3.10.25-gentoo",
            "initramfs-genkernel-x86_64-3.10.25-gentoo",
            "genkernel-x86_64-3.10.25-gentoo",
        ),
        ("kernel-5.10.27-gentoo-x86_64", "initramfs-5.10.27-gentoo-x86_64.img", "5.10.27-gentoo-x86_64"),
    ],
)
def test_every_distributions_names_of_kernel_and_initramfs_are_known(image, initrd, version):
    expected = Kernel(version, f"/boot/{image}", f"/boot/{initrd}")
    assert bootable(Files({f"/boot/{image}": b"", f"/boot/{initrd}": b""})) == (expected,)


@pytest.mark.parametrize(
    ("modules", "flavour"),
    [
        ({"/lib/modules/5.4.72-0-virt/x": b""}, "virt"),
        ({"/lib/modules/5.4.72-0-virt/pkgbase": b"linux\n"}, "linux"),
    ],
)
def test_a_kernel_that_names_its_flavour_has_the_release_of_its_modules(modules, flavour):
    files = {f"/boot/vmlinuz-{flavour}": b"", f"/boot/initramfs-{flavour}.img": b"", **modules}
    assert versions(files) == ["5.4.72-0-virt"]


def test_slackwares_generic_kernel_has_an_initrd_without_a_version():
    files: dict[str, str | bytes] = {
        "/etc/slackware-version": "14.2",
        "/boot/vmlinuz-generic-4.4.14": b"",
        "/boot/initrd.gz": b"",
    }
    assert bootable(Files(files))[0].initrd == "/boot/initrd.gz"
    del files["/etc/slackware-version"]
    assert bootable(Files(files)) == ()


@pytest.mark.parametrize(
    ("path", "content", "command"),
    [
        ("/etc/redhat-release", "CentOS release 5.9 (Final)", "yum install kernel"),
        ("/etc/redhat-release", "Rocky Linux release 9.2", "dnf install kernel"),
        ("/etc/debian_version", "5.0.10", "linux-image-2.6"),
        ("/etc/SuSE-release", "SLES 11", "zypper install kernel-default"),
        ("/etc/os-release", 'ID="opensuse-leap"', "zypper"),
        ("/etc/alpine-release", "3.12.1", "apk add linux-virt"),
        ("/etc/gentoo-release", "Gentoo", "emerge"),
    ],
)
def test_the_advice_is_the_distributions_and_asks_for_a_kernel_alone(path, content, command):
    with pytest.raises(Refused, match=command) as refused:
        require(Files({path: content}), "web1")
    assert "grub" not in refused.value.way_out
