"""What control frames say: JSON objects, read strictly, with every number and text bounded.

Fields that are not known are passed over, so that a later release may say more.
"""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from blocksync.devices.guards import Signature
from blocksync.errors import BlocksyncError, Failed, Interrupted, Refused, Usage
from blocksync.foreign import shown
from blocksync.wire.frames import END_OF_OFFSETS, Violation

PROTOCOL = 1
# A carrier: streams beside those that the conversation began on (see remote/beside.py).
TLS = "tls"

Count = Annotated[int, Meta(ge=0, le=END_OF_OFFSETS)]
Name = Annotated[str, Meta(max_length=64)]
MOST_TEXT = 4096
Text = Annotated[str, Meta(max_length=MOST_TEXT)]
Identity = Annotated[str, Meta(max_length=1024)]
# One word: it becomes a part of a line in the target's history.
Stamp = Annotated[str, Meta(max_length=256, pattern=r"\A[!-~]*\Z")]
Names = Annotated[tuple[Name, ...], Meta(max_length=64)]

# An X.509 certificate in DER; it travels in base64.
Certificate = Annotated[bytes, Meta(max_length=2048)]
Streams = Annotated[int, Meta(ge=1, le=16)]
Port = Annotated[int, Meta(ge=0, le=65535)]

Role = Literal["source", "target"]


class Hello(Struct, frozen=True, kw_only=True):
    """The first message of each end: what it speaks. `boot` tells whether both run under one kernel,
    `carriers` what the conversation can move to.
    """

    protocol: Count
    hashes: Names
    codecs: Names
    roles: Names = ("source", "target")
    boot: Name = ""
    carriers: Names = ()


class Offer(Struct, frozen=True, kw_only=True):
    """Near to far: so many TLS streams each way beside these, from who has this certificate, to this port (0:
    one that is free there).
    """

    certificate: Certificate
    streams: Streams
    port: Port


class OfferAnswer(Struct, frozen=True, kw_only=True):
    """Far to near: my certificate and the port where I listen. `trouble`, if any, says why I do not."""

    certificate: Certificate = b""
    port: Port = 0
    trouble: Text = ""


class Connected(Struct, frozen=True):
    """Near to far: whether all my streams are up."""

    all: bool


class Arrived(Struct, frozen=True):
    """Far to near: whether all of them have come here. If so, this is my last frame on the old streams."""

    all: bool


class PassOrder(Struct, frozen=True, kw_only=True):
    """Near to far: the device it shall be about, and as what. `signature` asks what is on a source, `origin`
    names the volume that a source is a snapshot of, whose identity is wanted.
    """

    role: Role
    path: Text
    signature: bool = False
    origin: Text | None = None


class StatedMark(Struct, frozen=True, kw_only=True):
    """A signature of libblkid's (blocksync.devices.guards.Signature)."""

    type: Name
    uuid: Name = ""
    is_table: bool = False

    @classmethod
    def of(cls, signature: Signature) -> "StatedMark":
        return cls(type=signature.type, uuid=signature.uuid, is_table=signature.is_table)

    @property
    def signature(self) -> Signature:
        return Signature(self.type, self.uuid, is_table=self.is_table)


Marks = Annotated[tuple[StatedMark, ...], Meta(max_length=64)]


class FarDevice(Struct, frozen=True, kw_only=True):
    """Far to near: what the path is there. `kind` `missing` is a target file that would be made. `stamp` is a
    target's (see history.py). `data` is how many bytes of a file are no holes, None where nobody knows.
    """

    kind: Literal["file", "block", "missing"]
    size: Count
    sector_size: Annotated[int, Meta(ge=512, le=65536)]
    number: tuple[int, int] = (-1, -1)
    identity: Identity = ""
    stamp: Stamp = ""
    signature: StatedMark | None = None
    data: Count | None = None


class Start(Struct, frozen=True, kw_only=True):
    """Near to far: the pass. As many `extents` follow in EXTENTS frames; None means all of it.

    `wanted` is the range whose digests the near source does not know. `trusted` says that the near end's
    digest file is about this target.
    """

    size: Count
    target_offset: Count
    block_size: Annotated[int, Meta(ge=4096, le=16 * 2**20)]
    hash: Name
    compare: bool = True
    dry_run: bool = False
    direct: bool = False
    cache: bool = False
    trusted: bool = False
    wanted: tuple[Count, Count] = (0, 0)
    extents: Annotated[int, Meta(ge=0, le=2**20)] | None = None
    codecs: Names = ()
    bytes_per_second: Annotated[int, Meta(ge=1, le=END_OF_OFFSETS)] | None = None
    known: Marks = ()
    overrides: Names = ()


class Ready(Struct, frozen=True, kw_only=True):
    """Far to near: every guard agreed and the device is open; its identity and stamp, now that it exists."""

    identity: Identity = ""
    stamp: Stamp = ""


class Totals(Struct, frozen=True, kw_only=True):
    """Source to target, last: frames of DATA, ZEROS and DIFFERS sent; bytes looked at, read, and changed.

    `complete` false: the source stopped because it was asked to.
    """

    frames: Count
    looked_at: Count
    read: Count
    changed: Count
    complete: bool


class Done(Struct, frozen=True, kw_only=True):
    """Target to source, last: everything is applied and durable, and left the target with this stamp."""

    frames: Count
    read: Count = 0
    written: Count = 0
    zeroed: Count = 0
    stamp: Stamp = ""


class ErrorMessage(Struct, frozen=True, kw_only=True):
    """An error of one end, for the other: the parts of a BlocksyncError."""

    kind: Literal["failed", "usage", "refused", "interrupted"]
    thing: Text
    cause: Text
    way_out: Text = ""
    guard: Name = ""

    @classmethod
    def of(cls, error: BlocksyncError) -> "ErrorMessage":
        texts = [text[:MOST_TEXT] for text in (error.thing, error.cause, error.way_out)]
        return cls(
            kind=_kind(error),
            thing=texts[0],
            cause=texts[1],
            way_out=texts[2],
            guard=error.guard if isinstance(error, Refused) else "",
        )

    def error(self, end: str) -> BlocksyncError:
        """The error, as this end raises it; `end` says which end it comes from. What to do is that end's word
        and is told as such, so that nobody takes it for ours.
        """
        thing, cause, advice = (shown(text, MOST_TEXT) for text in (self.thing, self.cause, self.way_out))
        thing, cause = f"{end}: {thing}", f"{cause} ({end} says: {advice})" if advice else cause
        if self.kind == "refused":
            return Refused(thing, cause, guard=shown(self.guard))
        return {"failed": Failed, "usage": Usage, "interrupted": Interrupted}[self.kind](thing, cause)


Message = (
    Hello
    | Offer
    | OfferAnswer
    | Connected
    | Arrived
    | PassOrder
    | FarDevice
    | Start
    | Ready
    | Totals
    | Done
    | ErrorMessage
)
AnyMessage = TypeVar("AnyMessage", bound=Message)


def encode(message: Message) -> bytes:
    return msgspec.json.encode(message)


def decode(data: bytes | bytearray | memoryview, kind: type[AnyMessage]) -> AnyMessage:
    """Raises Violation when it is no such message."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Violation(f"no {kind.__name__}: {shown(str(error), 200)}") from None


def _kind(error: BlocksyncError) -> Literal["failed", "usage", "refused", "interrupted"]:
    if isinstance(error, Refused):
        return "refused"
    if isinstance(error, Usage):
        return "usage"
    return "interrupted" if isinstance(error, Interrupted) else "failed"
