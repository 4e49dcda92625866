"""JSON of `xl list -l`, in the shapes of several versions."""

import json

import pytest

from blocksync.errors import Usage
from orchestrate.xen.guest import describe
from orchestrate.xen.xl_listing import parse

DISK = {"pdev_path": "/dev/vg/x", "vdev": "xvda1", "format": "raw", "readwrite": 1}


def config(**built: object) -> dict[str, object]:
    return {"c_info": {"type": "pv", "name": "a"}, "b_info": {"target_memkb": 65536} | built, "disks": [DISK]}


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param([{"domid": 3, "config": config()}], id="array"),
        pytest.param({"domid": 3, "config": config()}, id="object"),
        pytest.param(config(), id="config-alone"),
    ],
)
def test_all_shapes_hold_the_same_guest(shape: object) -> None:
    guest = describe(parse(json.dumps(shape), "g.json"), "g.json")
    assert (guest.name, guest.memory_mib, guest.disks[0].target) == ("a", 64, "/dev/vg/x")


@pytest.mark.parametrize(
    "built",
    [
        pytest.param({"kernel": "/k", "cmdline": "root=/dev/xvda1"}, id="in-b_info"),
        pytest.param({"type.pv": {"kernel": "/k", "cmdline": "root=/dev/xvda1"}}, id="in-type.pv"),
        pytest.param({"u": {"kernel": "/k", "cmdline": "root=/dev/xvda1"}}, id="in-u"),
    ],
)
def test_the_kernel_is_found_where_each_version_keeps_it(built: dict[str, object]) -> None:
    guest = describe(parse(json.dumps(config(**built)), "g.json"), "g.json")
    assert (guest.kernel, guest.root) == ("/k", "/dev/xvda1")


def test_what_is_left_out_has_its_default() -> None:
    text = json.dumps(
        config(localtime="<default>") | {"disks": [{"pdev_path": "/dev/vg/x", "vdev": "xvda1"}]}
    )
    guest = describe(parse(text, "g.json"), "g.json")
    assert guest.disks[0].readonly
    assert guest.disks[0].format == "raw"
    assert (guest.localtime, guest.on_poweroff, guest.vcpus) == (False, "destroy", 1)


def test_an_hvm_guest_is_refused() -> None:
    text = json.dumps(config() | {"c_info": {"type": "hvm", "name": "a"}})
    with pytest.raises(Usage, match="HVM"):
        describe(parse(text, "g.json"), "g.json")


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        ("[]", "1:1", "holds 0 guests"),
        ('[{"config": 1}, {"config": 2}]', "1:1", "holds 2 guests"),
        ('{"a": 1}', "1:1", "no guest of xl"),
        ("[1]", "1:2", "a group of settings was expected"),
        ('{"a": 1', "1:8", "`}` was expected"),
        ('{"a" 1}', "1:6", "`:` was expected"),
        ("{a: 1}", "1:2", "a name in double quotes was expected"),
        ('{"a":\n nul}', "2:2", "a JSON value was expected"),
        ('{"a": 1.2.3}', "1:7", "a JSON value was expected, not 1.2.3"),
        ('{"a": "\\q"}', "1:7", "a string was expected"),
        ("{} x", "1:4", "something follows"),
        ("[" * 100_000, "1:33", "nest more than 32 deep"),
        (
            '{"c_info": {"name": "a"},\n "b_info": {"target_memkb": "x"}}',
            "2:29",
            "a whole number was expected",
        ),
    ],
)
def test_errors_name_line_and_column(text: str, place: str, cause: str) -> None:
    with pytest.raises(Usage) as caught:
        parse(text, "g.json")
    assert caught.value.thing == f"g.json:{place}"
    assert cause in caught.value.cause
    assert caught.value.way_out
