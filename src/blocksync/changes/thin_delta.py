"""What two devices of a thin pool do not share: `thin_delta` of thin-provisioning-tools, and its XML.

    <superblock ... data_block_size="128" nr_data_blocks="...">
      <diff left="1" right="2">
        <same begin="0" length="4"/> <different .../> <left_only .../> <right_only .../>

Units are data blocks of `data_block_size` sectors of 512 bytes (thin_delta(8)).
"""

from xml.parsers import expat

from blocksync.changes.candidates import ListLostError
from blocksync.extents import Extents
from blocksync.foreign import shown, shown_bytes
from blocksync.hosts.runner import MISSING, Run
from blocksync.sizes import counted

SECTOR = 512

_CHANGED = frozenset({"different", "left_only", "right_only"})
_KNOWN = _CHANGED | {"superblock", "diff", "same"}
_LARGEST_BLOCK = 2**30 // SECTOR

# The metadata is read from a snapshot of it that the pool holds, one at a time, until it is told to let go.
# Told by the same shell that asked for it, so that a caller that dies leaves none behind; if this shell is
# killed, the next one finds the mark, and nobody holding its lock.
_SCRIPT = r"""
pool=$1 metadata=$2 from=$3 to=$4 mark=/run/xen2kvm-$1.held
exec 9>>"$mark" || exit
flock -n 9 || { echo "another run of this reads the pool" >&2; exit 75; }
release() { dmsetup message "$pool" 0 release_metadata_snap >&2 && : >"$mark"; }
[ ! -s "$mark" ] || release || : >"$mark"
dmsetup message "$pool" 0 reserve_metadata_snap || exit
echo $$ >"$mark"
trap release EXIT
trap 'exit 143' HUP INT TERM PIPE
thin_delta --metadata-snap --snap1 "$from" --snap2 "$to" "$metadata"
"""


def between(run: Run, pool: str, metadata: str, ids: tuple[int, int], size: int) -> Extents:
    """What differs between the devices `ids` of a thin pool, within `size` bytes.

    `pool` is the pool's device-mapper name, `metadata` the path of its metadata device. Raises ListLostError.
    """
    older, newer = ids
    status, output = run(["sh", "-c", _SCRIPT, "sh", pool, metadata, str(older), str(newer)])
    if status == MISSING:
        raise ListLostError("thin_delta is not on the host: install thin-provisioning-tools")
    if status:
        raise ListLostError(f"thin_delta: {shown_bytes(output) or f'ended with status {status}'}")
    return parse(output, ids, size)


def parse(document: bytes, ids: tuple[int, int], size: int) -> Extents:
    """The changed extents, in bytes, of thin_delta's output for the devices `ids`, of which the larger has
    `size` bytes. Raises ListLostError for anything that thin_delta would not have written.
    """
    reading = _Delta(ids, size)
    parser = expat.ParserCreate()
    parser.StartElementHandler = reading.start
    parser.StartDoctypeDeclHandler = reading.doctype
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise ListLostError(f"thin_delta's answer cannot be read: {error}") from None
    if not reading.met:
        raise ListLostError("thin_delta's answer compares nothing")
    return Extents.of(reading.found).coalesce()


class _Delta:
    """What was read so far of an answer."""

    def __init__(self, ids: tuple[int, int], size: int) -> None:
        self.found: list[tuple[int, int]] = []
        self.met = False
        self._ids = ids
        self._size = size
        self._block = 0
        self._end = 0

    def doctype(self, *_: object) -> None:
        raise ListLostError("thin_delta's answer has a document type, which it never writes")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name not in _KNOWN:
            raise ListLostError(f"thin_delta's answer has an unknown element {shown(name, 40)!r}")
        if name == "superblock":
            sectors = _number(attributes, "data_block_size", _LARGEST_BLOCK)
            self._block = sectors * SECTOR
        elif name == "diff":
            ids = (_number(attributes, "left", 2**24), _number(attributes, "right", 2**24))
            if ids != self._ids or self.met or not self._block:
                raise ListLostError("thin_delta's answer is about other devices")
            self.met = True
        else:
            self._extent(name, attributes)

    def _extent(self, name: str, attributes: dict[str, str]) -> None:
        most = -(-self._size // self._block) if self.met else 0
        begin = _number(attributes, "begin", most)
        length = _number(attributes, "length", most - begin)
        if not length or begin < self._end:
            raise ListLostError("thin_delta's answer has an extent that is empty or out of order")
        self._end = begin + length
        if name in _CHANGED:
            start = begin * self._block
            self.found.append((start, min(self._end * self._block, self._size) - start))


def _number(attributes: dict[str, str], name: str, most: int) -> int:
    text = attributes.get(name, "")
    number = counted(text)
    if number is None or number > most:
        raise ListLostError(f"thin_delta's answer has an impossible {name}: {text[:20]!r}")
    return number
