"""Where a device is: paths and URLs, the unsafe ones refused."""

from pathlib import Path

import pytest

from blocksync.errors import Usage
from blocksync.hosts.name import HostName
from blocksync.locations import Location, parse


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("/dev/vg0/root", Location(host=None, path=Path("/dev/vg0/root"))),
        ("disk.raw", Location(host=None, path=Path("disk.raw"))),
        ("ssh://xenhost/dev/vg0/root", Location(host=HostName(None, "xenhost"), path=Path("/dev/vg0/root"))),
        (
            "ssh://root@XenHost:2222/dev/a",
            Location(host=HostName("root", "XenHost", 2222), path=Path("/dev/a")),
        ),
        ("ssh://[::1]:22/dev/a", Location(host=HostName(None, "::1", 22), path=Path("/dev/a"))),
        ("xenhost:/dev/a", Location(host=HostName(None, "xenhost"), path=Path("/dev/a"))),
        ("root@xenhost:/dev/a%20 b", Location(host=HostName("root", "xenhost"), path=Path("/dev/a%20 b"))),
        ("root@[fe80::1]:/dev/a", Location(host=HostName("root", "fe80::1"), path=Path("/dev/a"))),
        ("[::1]:/dev/a:b", Location(host=HostName(None, "::1"), path=Path("/dev/a:b"))),
        ("./a:b", Location(host=None, path=Path("a:b"))),
        ("/dev/disk/by-path/pci-0000:00:1f.2", Location(path=Path("/dev/disk/by-path/pci-0000:00:1f.2"))),
        ("dir/host:/x", Location(path=Path("dir/host:/x"))),
        ("ssh://h/dev/a%20b", Location(host=HostName(None, "h"), path=Path("/dev/a b"))),
    ],
)
def test_a_location_is_read_and_written(text, location):
    assert parse(text) == location
    assert text.startswith("./") or "%20" in text or parse(str(location)) == location


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://host",
        "ssh://host/",
        "ssh:///dev/a",
        "ssh://-oProxyCommand=x/dev/a",
        "ssh://root@-h/dev/a",
        "ssh://host:0/dev/a",
        "ssh://host:99999/dev/a",
        "ssh://host:x/dev/a",
        "ssh://root:secret@host/dev/a",
        "ssh://ho\nst/dev/a",
        "ssh://host/dev/a\0b",
        "ssh://host/dev/a%0Ab" + "\r",
        "ssh://ho$(x)st/dev/a",
        "/dev/a\0b",
        "",
        "-",
        "a:b",
        "host:relative/path",
        ":/dev/a",
        "@:/dev/a",
        "host::/dev/a",
        "host:22:/dev/a",
        "::1:/dev/a",
        "[::1:/dev/a",
        "-oProxyCommand=x:/dev/a",
        "ho st:/dev/a",
        "ssh:/dev/a:b@",
        "root:secret@host:/dev/a",
    ],
)
def test_an_unsafe_or_incomplete_location_is_refused(text):
    with pytest.raises(Usage):
        parse(text)
