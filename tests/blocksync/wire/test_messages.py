"""Messages: read strictly, shown safely."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocksync.errors import Failed, Interrupted, Refused, Usage
from blocksync.wire.frames import Violation
from blocksync.wire.messages import (
    Arrived,
    Connected,
    Done,
    ErrorMessage,
    FarDevice,
    Hello,
    Offer,
    OfferAnswer,
    PassOrder,
    Ready,
    Start,
    Totals,
    decode,
    encode,
)

KINDS = [
    Hello,
    Offer,
    OfferAnswer,
    Connected,
    Arrived,
    PassOrder,
    FarDevice,
    Start,
    Ready,
    Totals,
    Done,
    ErrorMessage,
]
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_violation(kind, data: bytes) -> None:
    try:
        message = decode(data, kind)
    except Violation:
        return
    assert isinstance(message, kind)


@pytest.mark.parametrize("kind", KINDS)
# A machine at work draws slowly.
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_fields_of_any_kind_are_a_message_or_a_violation(kind, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(kind.__struct_fields__))
    fields = data.draw(st.dictionaries(names, values))
    try:
        message = decode(json.dumps(fields).encode(), kind)
    except Violation:
        return
    assert decode(encode(message), kind) == message


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Totals, {"frames": -1, "looked_at": 0, "read": 0, "changed": 0, "complete": True}),
        (Totals, {"frames": 2**63, "looked_at": 0, "read": 0, "changed": 0, "complete": True}),
        (Totals, {"frames": 1, "looked_at": 0, "read": 0, "changed": 0, "complete": "yes"}),
        (FarDevice, {"kind": "pipe", "size": 0, "sector_size": 512}),
        (FarDevice, {"kind": "file", "size": 0, "sector_size": 0}),
        (FarDevice, {"kind": "file", "size": 0, "sector_size": 512, "identity": "x" * 1025}),
        (FarDevice, {"kind": "file", "size": 0, "sector_size": 512, "stamp": "a\nb"}),
        (Ready, {"stamp": "a b"}),
        (Hello, {"protocol": 1, "hashes": ["x"] * 65, "codecs": []}),
        (PassOrder, {"role": "king", "path": "/dev/a"}),
    ],
)
def test_numbers_and_texts_out_of_bounds_are_violations(kind, fields: dict[str, object]) -> None:
    with pytest.raises(Violation):
        decode(json.dumps(fields).encode(), kind)


def test_deep_nesting_is_a_violation() -> None:
    with pytest.raises(Violation):
        decode(b'{"x":' + b"[" * 60000, Totals)


@pytest.mark.parametrize("kind", [Failed, Usage, Interrupted])
def test_an_error_crosses_the_wire_whole(kind) -> None:
    told = decode(encode(ErrorMessage.of(kind("thing", "cause", "hint"))), ErrorMessage).error("xenhost")
    assert type(told) is kind
    assert (told.thing, told.cause, told.way_out) == ("xenhost: thing", "cause (xenhost says: hint)", "")


def test_a_refusal_keeps_its_guard() -> None:
    told = decode(encode(ErrorMessage.of(Refused("thing", "cause", guard="mounted"))), ErrorMessage).error(
        "far"
    )
    assert isinstance(told, Refused)
    assert told.guard == "mounted"


@given(st.text())
def test_an_error_of_the_other_end_cannot_write_on_the_terminal(text: str) -> None:
    told = ErrorMessage(kind="failed", thing=text, cause=text + "\x1b[2J\r\n", way_out=text).error("far")
    assert all(part.isprintable() for part in (told.thing, told.cause, told.way_out))
