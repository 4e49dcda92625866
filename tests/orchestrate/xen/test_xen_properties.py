"""Whatever the text: an answer or `Usage`, nothing executed, and what is written is what is read."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksync.errors import Usage
from orchestrate.xen import config, xl_listing, xm_listing
from orchestrate.xen.guest import describe
from orchestrate.xen.values import Value

READERS = (config.parse, xl_listing.parse, xm_listing.parse)

# Pieces that real and hostile files are made of; put together at random they reach deep into the readers.
PIECES = st.sampled_from(
    [
        *"()[]{}+%=;,.\\'\"\n\r #:-0",
        *[
            "'",
            "'phy:a,xvda1,w'",
            "disk",
            "vif",
            "name",
            "memory",
            "a",
            " = ",
            "+=",
            "512",
            "0x1f",
            "0o7",
            "%d",
            "%s",
        ],
        *[
            "'%s'",
            "True",
            "None",
            "import os",
            "__import__('os')",
            "\\x",
            "'''",
            '"""',
            "\u00e9",
            "\x85",
            "\u2028",
        ],
        *[
            '"c_info":',
            '"b_info":',
            '{"config":',
            '"disks":',
            "null",
            "1e999",
            "-",
            '"\\ud800"',
            "(domain ",
            "(vbd ",
        ],
        *[
            "(image (linux ",
            "(device ",
            "(uname phy:a)",
            "(dev xvda1)",
            "root=",
            "cmdline",
            "type",
            "'pv'",
            "\u0661",
        ],
    ]
)
TEXTS = st.text(max_size=200) | st.lists(PIECES, max_size=60).map("".join)


def described(read: object, text: str) -> None:
    try:
        describe(read(text, "g"), "g.cfg")  # type: ignore[operator]
    except Usage as error:
        assert error.thing.startswith("g")
        assert error.cause


@pytest.mark.parametrize("read", READERS, ids=["config", "json", "sxp"])
@settings(max_examples=600, deadline=None)
@given(text=TEXTS)
def test_any_text_gives_a_guest_or_a_usage_error(read: object, text: str) -> None:
    described(read, text)


@settings(max_examples=300, deadline=None)
@given(
    disk=st.text(max_size=60), vif=st.text(max_size=60), memory=st.text(max_size=30), kind=st.text(max_size=9)
)
def test_any_values_give_a_guest_or_a_usage_error(disk: str, vif: str, memory: str, kind: str) -> None:
    text = f"disk=[{quoted(disk)}]\nvif=[{quoted(vif)}]\nmemory={quoted(memory)}\ntype={quoted(kind)}"
    described(config.parse, text)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["config", "c_info", "b_info", "disks", "nics", "name", "vdev", "type.pv", "mac"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=25,
    )
)
def test_any_json_gives_a_guest_or_a_usage_error(value: object) -> None:
    described(xl_listing.parse, json.dumps(value))
    described(xl_listing.parse, json.dumps({"c_info": {"name": "a"}, "b_info": value, "disks": value}))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_no_text_is_compiled_or_executed(text: str) -> None:
    events: list[str] = []
    WATCHED.append(events)
    try:
        described(config.parse, text)
    finally:
        WATCHED.pop()
    assert events == []


WATCHED: list[list[str]] = []


def _watch(event: str, _arguments: tuple[object, ...]) -> None:
    if WATCHED and event in ("compile", "exec", "import", "open", "os.system", "subprocess.Popen"):
        WATCHED[-1].append(event)


sys.addaudithook(_watch)


def test_the_watch_for_execution_sees_it() -> None:
    events: list[str] = []
    WATCHED.append(events)
    try:
        exec("a = 1")
    finally:
        WATCHED.pop()
    assert "exec" in events


def quoted(text: str) -> str:
    """`text` as a string of xm and xl, with every character escaped that needs to be."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}
    return "'" + "".join(escapes.get(character, character) for character in text) + "'"


def written(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    return f"[{', '.join(written(item) for item in value)}]" if isinstance(value, list) else repr(value)


def plain(value: Value) -> object:
    return [plain(item) for item in value.data] if isinstance(value.data, tuple) else value.data


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}x", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_what_is_written_is_what_is_read(values: dict[str, object]) -> None:
    text = "\n".join(f"{name} = {written(value)}" for name, value in values.items())
    assert {name: plain(value) for name, value in config.parse(text, "g").values.items()} == values


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=5), st.integers(0, 10**6))
def test_joining_and_formatting_agree_with_python(parts: list[str], number: int) -> None:
    text = f"v = {number}\na = {' + '.join(map(quoted, parts))}\nb = '%s-%05d-%x' % (a, v, v)"
    read = config.parse(text, "g")
    assert read.values["a"].data == "".join(parts)
    assert read.values["b"].data == f"{''.join(parts)}-{number:05d}-{number:x}"
