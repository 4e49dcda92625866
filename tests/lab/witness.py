"""What the witness (witness.sh) wrote: no record lost, none torn, no gap."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

SLOTS = 64
RECORD = 65536
HEADER = 128

LOG = Path("var/lib/witness/log")
RECORDS = Path("witness")

_ACKNOWLEDGED = re.compile(r"witness: acknowledged (\d+) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Account:
    """What was found: the last number of the log, how many records were compared, and all that is wrong."""

    last: int
    compared: int
    wrong: tuple[str, ...]


def acknowledged(console: str) -> dict[int, str]:
    """The records that a console's log says are durable: number to checksum, of the last writing of each."""
    return {int(number): digest for number, digest in _ACKNOWLEDGED.findall(console)}


def account(root: Path, srv: Path, expected: dict[int, str]) -> Account:
    """Look at the witness's log under the guest's root and its records under /srv, where both are mounted,
    and compare with what was acknowledged before.
    """
    text = (root / LOG).read_text()
    logged, wrong = _read_log(text)
    last = max(logged, default=0)
    for number, digest in expected.items():
        if number not in logged:
            wrong.append(f"record {number} was acknowledged and is not in the log")
        elif logged[number] != digest:
            wrong.append(f"record {number} is not the one that was acknowledged")
    recent = range(max(1, last - SLOTS + 1), last + 1)
    for number in recent:
        wrong += _record(srv / RECORDS / str(number % SLOTS), number, logged.get(number), last)
    return Account(last, len(recent), tuple(wrong))


def _read_log(text: str) -> tuple[dict[int, str], list[str]]:
    logged: dict[int, str] = {}
    wrong = [] if text.endswith("\n") or not text else ["the log's last line is torn"]
    for line_number, line in enumerate(text.splitlines(), 1):
        number, _, digest = line.partition(" ")
        if number != str(line_number) or not re.fullmatch("[0-9a-f]{64}", digest):
            wrong.append(f"line {line_number} of the log is {line[:80]!r}")
            break
        logged[line_number] = digest
    return logged, wrong


def _record(path: Path, number: int, digest: str | None, last: int) -> list[str]:
    """What is wrong with a slot, which may hold the record after the last one of the log already."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [f"record {number} has no file"]
    held, _, own = content[:HEADER].decode(errors="replace").strip().partition(" ")
    if len(content) != RECORD or own != hashlib.sha256(content[HEADER:]).hexdigest():
        return [f"record {number} is torn"]
    if held == str(last + 1) and number == last + 1 - SLOTS:
        return []
    if held != str(number) or own != digest:
        return [f"the slot of record {number} holds record {held}"]
    return []
