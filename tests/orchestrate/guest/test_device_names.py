"""device.map, debconf, resume, modprobe, lvm.conf, caches and modules."""

import pytest
from guest_files import SWAP, after, text

MAP = "/boot/grub/device.map"
DEBCONF = "/var/cache/debconf/config.dat"
RESUME = "/etc/initramfs-tools/conf.d/resume"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("(hd0)\t/dev/xvda\n", "(hd0)\t/dev/vda\n"),
        ("(hd0) /dev/loop0\n(hd0,1) /dev/loop1\n", "(hd0)\t/dev/vda\n"),
        ("# mine\n(fd0)\t/dev/fd0\n(hd1) /dev/sdb\n", "# mine\n(fd0)\t/dev/fd0\n(hd0)\t/dev/vda\n"),
        ("(hd0)   /dev/vda\n", "(hd0)   /dev/vda\n"),
        ("", "(hd0)\t/dev/vda\n"),
    ],
)
def test_device_map_names_the_new_disk_alone(before, expected):
    assert text(after("device-map", {MAP: before}), MAP) == expected


def test_device_map_is_not_made():
    assert after("device-map", {}).read(MAP) is None


def test_debconf_remembers_the_new_disk_for_grub_and_nothing_else():
    stanza = "Name: grub-pc/install_devices\nTemplate: grub-pc/install_devices\nValue: {}\nOwners: grub-pc\n"
    other = "Name: a/b\nValue: /dev/xvda\nOwners: a\n"
    guest = after("debconf-grub", {DEBCONF: f"{other}\n{stanza.format('/dev/xvda')}\n{other}"})
    assert text(guest, DEBCONF) == f"{other}\n{stanza.format('/dev/vda')}\n{other}"


def test_debconf_that_never_asked_is_left_alone():
    before = "Name: grub-pc/timeout\nValue: /dev/xvda\n"
    assert text(after("debconf-grub", {DEBCONF: before}), DEBCONF) == before


@pytest.mark.parametrize(
    ("path", "before", "expected"),
    [
        (RESUME, "RESUME=/dev/xvda1\n", f"RESUME=UUID={SWAP.uuid}\n"),
        (RESUME, 'RESUME="/dev/hda1" # swap\n', f'RESUME="UUID={SWAP.uuid}" # swap\n'),
        (RESUME, "RESUME=PARTUUID=0b0b0b0b-01\n", f"RESUME=UUID={SWAP.uuid}\n"),
        (RESUME, "RESUME=none\n", "RESUME=none\n"),
        (RESUME, "# RESUME=/dev/xvda1\n", "# RESUME=/dev/xvda1\n"),
        (
            "/etc/uswsusp.conf",
            "resume device = /dev/xvda1\n",
            f"resume device = /dev/disk/by-uuid/{SWAP.uuid}\n",
        ),
        (
            "/etc/dracut.conf.d/r.conf",
            'kernel_cmdline+=" resume=/dev/xvda1 "\n',
            f'kernel_cmdline+=" resume=UUID={SWAP.uuid} "\n',
        ),
    ],
)
def test_resume_names_the_swap_by_uuid(path, before, expected):
    assert text(after("resume", {path: before}), path) == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("alias eth0 xennet\n", "alias eth0 virtio_net\n"),
        ("alias eth1 xen-netfront # two\n", "alias eth1 virtio_net # two\n"),
        ("alias scsi_hostadapter xenblk\n", "alias scsi_hostadapter virtio_blk\n"),
        ("alias xen:vif xen_netfront\n", "alias xen:vif xen_netfront\n"),
        ("blacklist xennet\n", "blacklist xennet\n"),
    ],
)
@pytest.mark.parametrize("path", ["/etc/modprobe.conf", "/etc/modprobe.d/local.conf"])
def test_module_aliases_name_virtios_drivers(path, before, expected):
    assert text(after("modprobe", {path: before}), path) == expected


def test_lvms_filter_accepts_virtio_beside_xen():
    path = "/etc/lvm/lvm.conf"
    before = '\t# filter = [ "a/xvd.*/" ]\n\tfilter = [ "a|^/dev/xvd.*|", "r/.*/" ]\n'
    expected = '\t# filter = [ "a/xvd.*/" ]\n\tfilter = [ "a|^/dev/vd.*|", "a|^/dev/xvd.*|", "r/.*/" ]\n'
    assert text(after("lvm-filter", {path: before}), path) == expected


def test_caches_of_device_names_go():
    paths = ("/etc/blkid.tab", "/etc/lvm/cache/.cache", "/etc/lvm/devices/system.devices")
    guest = after("stale-caches", dict.fromkeys(paths, "x\n"))
    assert [guest.read(path) for path in paths] == [None, None, None]


def test_the_next_initramfs_of_each_kind_holds_virtio():
    modules, suse = "/etc/initramfs-tools/modules", "/etc/sysconfig/kernel"
    files = {
        modules: "# virtio_net\nvirtio_blk\n",
        suse: 'INITRD_MODULES="xennet xenblk ext3"\nDOMU_INITRD_MODULES="xennet xenblk"\n',
        "/etc/dracut.conf": "",
    }
    guest = after("initramfs-modules", files)
    assert text(guest, modules) == "# virtio_net\nvirtio_blk\nvirtio_pci\nvirtio_net\n"
    assert text(guest, suse) == (
        'INITRD_MODULES="ext3 virtio_pci virtio_blk virtio_net"\n'
        'DOMU_INITRD_MODULES="virtio_pci virtio_blk virtio_net"\n'
    )
    assert 'add_drivers+=" virtio_pci virtio_blk virtio_net "\n' in (
        text(guest, "/etc/dracut.conf.d/xen2kvm.conf") or ""
    )


def test_a_guest_without_an_initramfs_maker_gets_no_file_for_one():
    guest = after("initramfs-modules", {"/etc/fstab": ""})
    assert guest.names("/etc") == ("fstab",)


def test_cloud_init_leaves_the_network_alone_where_there_is_cloud_init():
    path = "/etc/cloud/cloud.cfg.d/99-xen2kvm-network.cfg"
    assert (
        text(after("cloud-init", {"/etc/cloud/cloud.cfg.d/README": ""}), path)
        == "network: {config: disabled}\n"
    )
    assert after("cloud-init", {}).read(path) is None
