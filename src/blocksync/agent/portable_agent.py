# Newer ways of writing this are what old hosts do not have.
# ruff: noqa: B904, B905, PLR0917, PTH110, PTH115, PTH116, PTH119, PTH123, PTH208, RUF005, SIM105, SIM115
# ruff: noqa: UP004, UP024, UP031
"""The far end of a pass where nothing is installed: source or target, in one file, for Python 2.6 to 3.13.

It is sent over the channel to a loader (see remote/bootstrap.py), runs from memory and leaves nothing behind.
It needs the standard library alone, hashes with what hashlib has there, and speaks the protocol of
docs/wire.md with the native near end. A target must exist already, and is refused while anybody uses it:
as far as the kernel there tells, which O_EXCL makes enough for block devices.

Sizes and offsets are in bytes. Types stand in comments.
"""

import bisect
import errno
import fcntl
import hashlib
import io
import json
import mmap
import os
import re
import select
import stat
import struct
import subprocess
import threading
import time
import zlib

# Type checkers take this for true; old Pythons have no such module.
TYPE_CHECKING = False
if TYPE_CHECKING:  # novm
    from collections.abc import Callable, Iterator  # noqa: F401
    from typing import Any  # noqa: F401

    Run = tuple[int, bool, list[bytes]]

GREETING = b"\x00BSWIRE1"
HEADER = struct.Struct(">BBHIQQ")
PROTOCOL = 1

HELLO, JOB, DEVICE, START, READY, TOTALS, DONE, ERROR = range(1, 9)
EXTENTS, READ, BYTES = range(16, 19)
DIGESTS, UNKNOWN, HOLE, KNOWN = range(32, 36)
DATA, ZEROS, DIFFERS = range(48, 51)
ALIVE, STOP, DURABLE = range(64, 67)
MESSAGES = (HELLO, JOB, START, TOTALS, DONE, ERROR)

PLAIN, ZLIB = 0, 3
ROLES = ("source", "target")

LARGEST_MESSAGE = 65536
MOST_DIGESTS = 4096
MOST_BLOCKS = 65536
END_OF_OFFSETS = 2**63 - 1
MOST_EXTENTS = 2**20
LARGEST_READ = 16 * 2**20
SEGMENT = 2**21
FLUSH_EVERY = 256 * 2**20
# Below this a run of zeros is cheaper to write than to punch, as in wire/target.py.
HOLE_WORTH = 65536
SMALLEST_BLOCK, LARGEST_BLOCK = 4096, 16 * 2**20

PATIENCE = 25.0
BEAT = 0.5
PIECE = 2**18

# <linux/fs.h>
BLKSSZGET, BLKFLSBUF = 0x1268, 0x1261
# <linux/falloc.h>: FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE
PUNCH_HOLE = 3
DIRECT = getattr(os, "O_DIRECT", 0)

SYSFS = "/sys/dev/block/%d:%d/"
BACKENDS = "/sys/bus/xen-backend/devices"
# Sectors written and discarded in a disk's `stat`, as in history.py.
WRITTEN = (6, 13)

# These hold the kernel's own claim: where one is overridden, that must be left out.
IN_USE = ("mounted", "swap", "held", "domain", "open")
RELEASE = "release it, or name another target"


class Problem(Exception):
    """What went wrong, for the near end: kind, thing, cause, hint."""

    def __init__(self, kind, thing, cause, way_out="", guard=""):
        # type: (str, str, str, str, str) -> None
        Exception.__init__(self, cause)
        self.fields = {"kind": kind, "thing": thing, "cause": cause, "way_out": way_out, "guard": guard}


class Gone(Exception):
    """The near end is gone, or says nothing any more."""


def violation(cause):
    # type: (str) -> Problem
    way_out = "install the same release on both hosts"
    return Problem("failed", "the other end", "breaks the protocol: " + cause, way_out)


class Link(object):
    """Frames over two descriptors, with a deadline on everything."""

    def __init__(self, read_fd, write_fd):
        # type: (int, int) -> None
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.lock = threading.Lock()
        self.heard = self.said = self.beaten = time.time()
        self.moment = None  # type: Callable[[], tuple[int, int]] | None
        # Seconds that sending took so far: with `sent`, how fast the link takes bytes.
        self.busy = 0.0
        self.sent = 0
        self.rate = 0
        self.due = 0.0
        # Of the frame that was received last.
        self.codec = PLAIN
        for fd in (read_fd, write_fd):
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)

    def send(self, kind, payload=(), offset=0, size=0, codec=PLAIN):
        # type: (int, tuple[bytes, ...], int, int, int) -> None
        length = sum(len(part) for part in payload)
        with self.lock:
            self.write(HEADER.pack(kind, codec, 0, length, offset, size))
            for part in payload:
                self.write(part)
            # Who sends all the time leaves the beat no turn, and nobody would know how far this is.
            if self.moment is not None and self.said - self.beaten >= BEAT:
                self.tell_moment()

    def say(self, kind, fields):
        # type: (int, dict[str, Any]) -> None
        self.send(kind, (json.dumps(fields).encode("ascii"),))

    def beat(self, moment):
        # type: (Callable[[], tuple[int, int]]) -> None
        self.moment = moment
        while True:
            time.sleep(BEAT)
            if self.lock.acquire(False):
                try:
                    self.tell_moment()
                finally:
                    self.lock.release()

    def tell_moment(self):
        # type: () -> None
        if self.moment is not None:
            offset, size = self.moment()
            self.write(HEADER.pack(ALIVE, PLAIN, 0, 0, offset, size))
            self.beaten = self.said

    def receive(self):
        # type: () -> tuple[int, int, int, int]
        """The next frame's type, payload length, offset and size."""
        kind, codec, zero, length, offset, size = HEADER.unpack(self.take(HEADER.size))
        if zero or (codec and (kind, codec) != (DATA, ZLIB)):
            raise violation("a frame of type %d with codec %d and flags %d" % (kind, codec, zero))
        self.codec = codec
        if kind in MESSAGES and not 2 <= length <= LARGEST_MESSAGE:
            raise violation("a message of %d bytes" % length)
        return kind, length, offset, size

    def message(self, length):
        # type: (int) -> dict[str, Any]
        try:
            fields = json.loads(self.take(length).decode("utf-8"))
        except (ValueError, RuntimeError):
            raise violation("a message that is no JSON")
        if not isinstance(fields, dict):
            raise violation("a message that is no object")
        return fields

    def expect(self, wanted, answer=None):
        # type: (int, Callable[[int, int], None] | None) -> dict[str, Any]
        """The next message, which must be of this type; `answer` serves what may be read before it."""
        while True:
            kind, length, offset, size = self.receive()
            if kind == wanted:
                return self.message(length)
            if kind == ERROR:
                raise Gone("the near end gave up")
            if kind == READ and not length and answer is not None:
                answer(offset, size)
            elif kind != ALIVE or length:
                raise violation("a frame of type %d instead of %d" % (kind, wanted))

    def take(self, length):
        # type: (int) -> bytes
        parts = []  # type: list[bytes]
        since = time.time()
        while length > 0:
            try:
                part = os.read(self.read_fd, min(length, PIECE))
            except OSError as error:
                self.again(error)
                self.wait(self.read_fd, select.POLLIN, max(since, self.heard))
                continue
            if not part:
                raise Gone("the connection ended")
            self.heard = time.time()
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def write(self, data):
        # type: (bytes) -> None
        at = 0
        since = time.time()
        while at < len(data):
            piece = data[at : at + self.allowed()]
            try:
                count = os.write(self.write_fd, piece)
            except OSError as error:
                self.again(error)
                self.wait(self.write_fd, select.POLLOUT, max(since, self.said, self.heard))
                continue
            self.said = time.time()
            self.sent += count
            self.due = max(self.due, self.said) + (count / float(self.rate) if self.rate else 0)
            at += count
        self.busy += time.time() - since

    def allowed(self):
        # type: () -> int
        if not self.rate:
            return PIECE
        pause = self.due - time.time()
        if pause > 0:
            time.sleep(pause)
        return max(min(self.rate // 10, PIECE), 4096)

    def again(self, error):
        # type: (OSError) -> None
        if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
            raise Gone(str(error))

    def wait(self, fd, event, last_sign):
        # type: (int, int, float) -> None
        poll = select.poll()
        poll.register(fd, event)
        try:
            ready = poll.poll(1000)
        except (select.error, OSError):
            # A signal, before Python 3.5.
            return
        if not ready and time.time() - last_sign > PATIENCE:
            raise Gone("nothing moved for %d seconds" % PATIENCE)


class Told(object):
    """What the target holds, as the near end tells it: digests of the extents, in their order."""

    def __init__(self, extents):
        # type: (list[tuple[int, int]]) -> None
        self.changed = threading.Condition()
        self.parts = []  # type: list[bytes]
        self.length = 0
        self.halted = False
        self.failure = None  # type: Exception | None
        self.rest = iter(extents)
        self.at = self.end = 0
        self.next_extent()

    def next_extent(self):
        # type: () -> None
        self.at, length = next(self.rest, (self.at, 0))
        self.end = self.at + length

    def step(self, offset, size):
        # type: (int, int) -> None
        """A range that is told must be what comes next."""
        if size < 1 or offset != self.at or offset + size > self.end:
            raise violation("digests of %d bytes at %d out of order" % (size, offset))
        self.at += size
        if self.at == self.end:
            self.next_extent()

    def add(self, digests):
        # type: (bytes) -> None
        with self.changed:
            self.parts.append(digests)
            self.length += len(digests)
            self.changed.notify()

    def halt(self, failure=None):
        # type: (Exception | None) -> None
        with self.changed:
            self.halted = True
            self.failure = self.failure or failure
            self.changed.notify()

    def take(self, length):
        # type: (int) -> bytes | None
        """The next `length` bytes of digests; None once the pass is halted."""
        with self.changed:
            while self.length < length and not self.halted:
                # Without a timeout: before Python 3.2 those are waited for by sleeping.
                self.changed.wait()
            if self.halted:
                return None
            taken = []
            self.length -= length
            while length > 0:
                part = self.parts.pop(0)
                if len(part) > length:
                    self.parts.insert(0, part[length:])
                    part = part[:length]
                taken.append(part)
                length -= len(part)
            return b"".join(taken)


class Device(object):
    """A device, open for reading. `direct` reads past the page cache."""

    def __init__(self, path, direct):
        # type: (bytes, bool) -> None
        self.name = path.decode("utf-8", "replace")
        self.direct = direct
        try:
            fd = os.open(path, os.O_RDONLY | (DIRECT if direct else 0))
        except OSError as error:
            if direct and error.errno == errno.EINVAL:
                cause, way_out = "refuses direct I/O, and its cached pages may be stale", "use --cache"
                raise Problem("failed", self.name, cause, way_out)
            raise Problem("usage", self.name, "cannot be opened: " + os.strerror(error.errno or 0))
        self.file = io.FileIO(fd, "r")
        self.pages = {}  # type: dict[int, mmap.mmap]

    def read(self, offset, size):
        # type: (int, int) -> bytes
        """`size` bytes at `offset`. Direct I/O reads whole pages, into memory that is aligned."""
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if room not in self.pages:
            if len(self.pages) > 16:
                self.pages.clear()
            self.pages[room] = mmap.mmap(-1, room)
        pages = self.pages[room]
        parts = []  # type: list[bytes]
        while size > 0:
            count = min(self.read_some(pages, offset), size)
            if count < size and self.direct:
                count -= count % 512
            if not count:
                self.fail(offset, "the device ends there")
            parts.append(pages[:count])
            offset += count
            size -= count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_some(self, pages, offset):
        # type: (mmap.mmap, int) -> int
        while True:
            try:
                self.file.seek(offset)
                return self.file.readinto(pages) or 0
            except (IOError, OSError) as error:
                if error.errno != errno.EINTR:
                    self.fail(offset, os.strerror(error.errno or 0))

    def fail(self, offset, cause):
        # type: (int, str) -> None
        cause = "cannot be read at byte %d: %s" % (offset, cause)
        raise Problem("failed", self.name, cause, "check the device and `dmesg`, then run the command again")


class Target(Device):
    """The target, open for reading as a source is; and for writing, through the page cache, by us alone."""

    def __init__(self, path, direct, start, block):
        # type: (bytes, bool, dict[str, Any], bool) -> None
        Device.__init__(self, path, direct)
        self.base = start["target_offset"]
        self.block = block
        self.written = self.zeroed = 0
        self.punch = None  # type: Callable[[int, int, int], bool] | None
        self.out = None  # type: io.FileIO | None
        if not start.get("dry_run"):
            self.out = io.FileIO(self.claim(path, frozenset(start.get("overrides") or ())), "r+")
            self.forget_pages()

    def claim(self, path, overrides):
        # type: (bytes, frozenset[str]) -> int
        exclusive = not overrides.intersection(IN_USE)
        try:
            fd = os.open(path, os.O_RDWR | (os.O_EXCL if exclusive and self.block else 0))
            if exclusive:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (IOError, OSError) as error:
            if error.errno in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
                raise Problem("refused", self.name, "is held or locked by somebody else", RELEASE, "held")
            raise Problem("usage", self.name, "cannot be opened: " + os.strerror(error.errno or 0))
        return fd

    def write(self, data, offset):
        # type: (bytes, int) -> None
        at = 0
        while at < len(data) and self.out is not None:
            try:
                self.out.seek(self.base + offset + at)
                at += self.out.write(data[at:]) or 0
            except (IOError, OSError) as error:
                if error.errno != errno.EINTR:
                    cause = "cannot be written at byte %d: %s"
                    self.broken(cause % (self.base + offset + at, os.strerror(error.errno or 0)))
        self.written += at

    def zero(self, offset, size):
        # type: (int, int) -> None
        """Make a hole, or let the device zero the range; where neither is possible, write zeros."""
        at = self.base + offset
        if self.out is not None and size >= HOLE_WORTH and at % mmap.PAGESIZE == size % mmap.PAGESIZE == 0:
            self.punch = self.punch or hole_punch()
            if self.punch(self.out.fileno(), at, size):
                self.zeroed += size
                return
        for piece, part in pieces([(offset, size)], SEGMENT):
            self.write(b"\0" * part, piece)

    def flush(self):
        # type: () -> None
        """Return once everything that was written is durable."""
        if self.out is None:
            return
        try:
            os.fsync(self.out.fileno())
        except (IOError, OSError) as error:
            self.broken("what was written may be lost: " + os.strerror(error.errno or 0))

    def forget_pages(self):
        # type: () -> None
        """Leave no stale page of a block device: whoever wrote to it may have written underneath them."""
        if self.out is None or not self.block:
            return
        try:
            fcntl.ioctl(self.out.fileno(), BLKFLSBUF, 0)
        except (IOError, OSError) as error:
            self.broken("its cached pages cannot be dropped: " + os.strerror(error.errno or 0))

    def broken(self, cause):
        # type: (str) -> None
        raise Problem("failed", self.name, cause, "check the device and `dmesg`, then run the command again")


class Unused(object):
    """Segments of zeros, often most of a volume: one comparison tells the digests of all their blocks."""

    def __init__(self, block, zero_digest):
        # type: (int, bytes) -> None
        self.block = block
        self.zero_digest = zero_digest
        self.zeros = b"\0" * max(SEGMENT, block)

    def digests(self, data):
        # type: (bytes) -> bytes | None
        """The digests of whole blocks of zeros; None for anything else."""
        size = len(data)
        if size % self.block or data != self.zeros[:size]:
            return None
        return self.zero_digest * (size // self.block)


class Scan(object):
    """One pass: hash what is here, send what the target does not hold."""

    def __init__(self, link, device, start, extents):
        # type: (Link, Device, dict[str, Any], list[tuple[int, int]]) -> None
        self.link = link
        self.device = device
        self.size = start["size"]
        self.block = start["block_size"]
        self.dry_run = bool(start.get("dry_run"))
        self.hash = HASHES[start["hash"]]
        self.zeros = b"\0" * self.block
        self.zero_digest = self.hash(self.zeros)
        self.unused = Unused(self.block, self.zero_digest)
        self.width = len(self.zero_digest)
        self.extents = extents
        self.told = Told(extents)
        self.packer = Packer(link, "zlib" in (start.get("codecs") or ()))
        self.looked_at = self.read = self.changed = self.frames = 0
        self.totals_sent = False

    def moment(self):
        # type: () -> tuple[int, int]
        return self.looked_at, self.read

    def listen(self):
        # type: () -> None
        try:
            while not self.heed(*self.link.receive()):
                pass
            self.told.halt()
        except Exception as error:
            self.told.halt(error)

    def heed(self, kind, length, offset, size):
        # type: (int, int, int, int) -> bool
        """Take in one frame; whether it was the last."""
        if kind == DONE and self.totals_sent:
            self.link.message(length)
            return True
        if kind == ERROR:
            raise Gone("the near end gave up")
        if kind == DIGESTS:
            self.learn_digests(length, offset, size)
        elif length:
            raise violation("a frame of type %d with %d bytes" % (kind, length))
        elif kind in (UNKNOWN, HOLE, KNOWN):
            self.learn_range(kind, offset, size)
        elif kind == STOP:
            self.told.halt()
        elif kind not in (ALIVE, DURABLE):
            raise violation("a frame of type %d to the source's end" % kind)
        return False

    def learn_digests(self, length, offset, size):
        # type: (int, int, int) -> None
        count = self.count(size)
        if count > MOST_DIGESTS or length != count * self.width:
            raise violation("%d bytes of digests of %d bytes" % (length, size))
        self.told.step(offset, size)
        self.told.add(self.link.take(length))

    def learn_range(self, kind, offset, size):
        # type: (int, int, int) -> None
        count = self.count(size)
        if count > MOST_BLOCKS:
            raise violation("a frame about %d blocks" % count)
        self.told.step(offset, size)
        if kind != HOLE:
            self.told.add(b"\0" * (count * self.width))
            return
        tail = size % self.block
        digests = self.zero_digest * (count - 1)
        self.told.add(digests + (self.hash(self.zeros[:tail]) if tail else self.zero_digest))

    def count(self, size):
        # type: (int) -> int
        return int(-(-size // self.block))

    def run(self):
        # type: () -> None
        for offset, size in pieces(self.extents, max(SEGMENT, self.block)):
            expected = self.told.take(self.count(size) * self.width)
            if expected is None:
                break
            self.look(offset, size, expected)
            self.looked_at += size
        if self.told.failure is not None:
            raise self.told.failure
        whole = sum(length for _, length in self.extents)
        self.totals_sent = True
        self.link.say(
            TOTALS,
            {
                "frames": self.frames,
                "looked_at": self.looked_at,
                "read": self.read,
                "changed": self.changed,
                "complete": self.looked_at == whole,
            },
        )

    def look(self, offset, size, expected):
        # type: (int, int, bytes) -> None
        data = self.device.read(offset, size)
        self.read += size
        if self.unused.digests(data) == expected:
            return
        run = None  # type: Run | None
        for number in range(self.count(size)):
            at = number * self.block
            block = data[at : at + self.block]
            zero = block == self.zeros[: len(block)]
            digest = self.zero_digest if zero and len(block) == self.block else self.hash(block)
            differs = digest != expected[number * self.width : (number + 1) * self.width]
            if run is not None and (not differs or run[1] != zero):
                self.send(data, offset, run[0], at, run[1], run[2])
                run = None
            if differs:
                run = run or (at, zero, [])
                run[2].append(digest)
        if run is not None:
            self.send(data, offset, run[0], size, run[1], run[2])

    def send(self, data, offset, start, end, zero, digests):
        # type: (bytes, int, int, int, bool, list[bytes]) -> None
        size = end - start
        self.frames += 1
        self.changed += size
        if self.dry_run or zero:
            self.link.send(DIFFERS if self.dry_run else ZEROS, (), offset + start, size)
            return
        codec, packed = self.packer.pack(data[start:end])
        self.link.send(DATA, (b"".join(digests), packed), offset + start, size, codec)


class Applying(object):
    """One pass: tell what the target holds, apply what differs."""

    def __init__(self, link, target, start, extents):
        # type: (Link, Target, dict[str, Any], list[tuple[int, int]]) -> None
        self.link = link
        self.target = target
        self.size = start["size"]
        self.block = start["block_size"]
        self.segment = max(SEGMENT, self.block)
        self.dry_run = bool(start.get("dry_run"))
        self.compare = bool(start.get("compare", True))
        self.wanted = wanted(start)
        self.hash = HASHES[start["hash"]]
        self.width = len(self.hash(b""))
        self.unused = Unused(self.block, self.hash(b"\0" * self.block))
        self.extents = extents
        self.whole = sum(length for _, length in extents)
        self.marked = bytearray(-(-self.size // (8 * self.block)))
        self.told = self.read = self.changed = self.unflushed = 0
        self.arrived = self.durable = 0
        self.failure = None  # type: Exception | None

    def moment(self):
        # type: () -> tuple[int, int]
        return self.arrived, self.durable

    # Telling

    def tell(self):
        # type: () -> None
        try:
            for offset, size in pieces(self.extents, MOST_DIGESTS * self.block):
                self.tell_stretch(offset, size)
        except Problem as problem:
            # The near end hangs up on this, which ends the thread that reads.
            self.failure = problem
            tell(self.link, problem)

    def tell_stretch(self, offset, size):
        # type: (int, int) -> None
        first, length = self.wanted
        if offset >= first + length or offset + size <= first:
            self.say(KNOWN, offset, size)
        elif not self.compare:
            self.say(UNKNOWN, offset, size)
        else:
            for at, part in pieces([(offset, size)], self.segment):
                self.say(DIGESTS, at, part, self.digests(self.target.read(self.target.base + at, part)))
                self.read += part

    def say(self, kind, offset, size, digests=b""):
        # type: (int, int, int, bytes) -> None
        # Before it is said: the source may answer at once.
        self.told = offset + size
        self.link.send(kind, (digests,) if digests else (), offset, size)

    def digests(self, data):
        # type: (bytes) -> bytes
        unused = self.unused.digests(data)
        if unused is not None:
            return unused
        return b"".join([self.hash(data[at : at + self.block]) for at in range(0, len(data), self.block)])

    # Applying

    def run(self):
        # type: () -> None
        while not self.heed(*self.link.receive()):
            if self.unflushed >= FLUSH_EVERY:
                self.flush()
                self.link.send(DURABLE, (), self.durable)
        if self.failure is not None:
            raise self.failure
        self.flush()
        self.target.forget_pages()

    def flush(self):
        # type: () -> None
        self.target.flush()
        self.unflushed = 0
        self.durable = self.arrived

    def heed(self, kind, length, offset, size):
        # type: (int, int, int, int) -> bool
        """Take in one frame; whether it was the last."""
        if kind == TOTALS:
            self.close(self.link.message(length))
            return True
        if kind == ERROR:
            raise Gone("the near end gave up")
        if kind == DATA and not self.dry_run:
            self.accept_data(length, offset, size)
        elif length:
            raise violation("a frame of type %d with %d bytes" % (kind, length))
        elif kind == ZEROS and not self.dry_run:
            self.accept_zeros(offset, size)
        elif kind == DIFFERS and self.dry_run:
            self.accept(offset, size)
        elif kind != ALIVE:
            raise violation("a frame of type %d to the target's end" % kind)
        return False

    def accept(self, offset, size):
        # type: (int, int) -> None
        """A change lies within the extents, behind the digests told, and comes once."""
        end = offset + size
        if size < 1 or end > self.size or offset % self.block or (end % self.block and end != self.size):
            raise violation("a change of %d bytes at %d" % (size, offset))
        count = -(-size // self.block)
        number = bisect.bisect(self.extents, (offset, self.size)) - 1
        if count > MOST_BLOCKS or number < 0 or end > sum(self.extents[number]) or end > self.told:
            raise violation("%d bytes at %d, which were not asked for" % (size, offset))
        for block in range(offset // self.block, offset // self.block + count):
            if self.marked[block // 8] >> block % 8 & 1:
                raise violation("%d bytes at %d a second time" % (size, offset))
            self.marked[block // 8] |= 1 << block % 8
        self.arrived += 1
        self.changed += size

    def accept_data(self, length, offset, size):
        # type: (int, int, int) -> None
        packed = length - -(-size // self.block) * self.width
        plain = self.link.codec == PLAIN
        if not (packed == size if plain else 0 < packed < size) or size > self.segment:
            raise violation("a frame of %d bytes about %d" % (length, size))
        self.accept(offset, size)
        digests = self.link.take(length - packed)
        data = self.link.take(packed)
        if not plain:
            data = unpacked(data, size)
        if self.digests(data) != digests:
            raise violation("data for %d bytes at %d that is not what was hashed" % (size, offset))
        self.target.write(data, offset)
        self.unflushed += size

    def accept_zeros(self, offset, size):
        # type: (int, int) -> None
        self.accept(offset, size)
        self.target.zero(offset, size)
        self.unflushed += size

    def close(self, totals):
        # type: (dict[str, Any]) -> None
        looked_at = totals.get("looked_at")
        told = (totals.get("frames"), totals.get("changed"))
        complete = totals.get("complete")
        if told != (self.arrived, self.changed) or not is_count(looked_at, self.whole):
            raise violation("totals that are not what came")
        if complete not in (True, False) or (complete and looked_at != self.whole):
            raise violation("a complete pass over a part")

    def done(self, stamp):
        # type: (str) -> dict[str, Any]
        """The acknowledgement that everything is applied and durable."""
        target = self.target
        return {
            "frames": self.arrived,
            "read": self.read,
            "written": target.written,
            "zeroed": target.zeroed,
            "stamp": stamp,
        }


def hole_punch():
    # type: () -> Callable[[int, int, int], bool]
    """Makes `size` bytes at an offset of a descriptor a hole, as fallocate(2) does; false where it does not.

    Python has no such call, and some have no ctypes, or one that is forbidden to load.
    """
    try:
        import ctypes  # noqa: PLC0415

        library = ctypes.CDLL(None)
        call = library.fallocate if ctypes.sizeof(ctypes.c_long) == 8 else library.fallocate64
    except (ImportError, AttributeError, OSError, MemoryError):
        return lambda fd, offset, size: False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
    return lambda fd, offset, size: call(fd, PUNCH_HOLE, offset, size) == 0


def wanted(start):
    # type: (dict[str, Any]) -> tuple[int, int]
    """The range whose digests the near end does not know."""
    numbers = start.get("wanted")
    if not isinstance(numbers, list) or len(numbers) != 2:
        raise violation("a range that is none")
    if not all(is_count(number, start["size"]) for number in numbers):
        raise violation("a range outside the pass")
    return numbers[0], numbers[1]


def is_count(number, most):
    # type: (Any, int) -> bool
    # In Python 2, an int that is large is a long.
    return not isinstance(number, bool) and hasattr(number, "__index__") and 0 <= number <= most


def unpacked(packed, size):
    # type: (bytes, int) -> bytes
    """Exactly `size` bytes; no more are ever made of what was packed."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, size + 1)
    except zlib.error:
        data = b""
    if len(data) != size or unpacker.unused_data or unpacker.unconsumed_tail:
        raise violation("%d bytes that do not unpack to %d" % (len(packed), size))
    return data


class Packer(object):
    """Compresses what shrinks, as long as the link is slower than zlib."""

    # Tries again after so many frames that were sent plain.
    INTERVAL = 64

    def __init__(self, link, allowed):
        # type: (Link, bool) -> None
        self.link = link
        self.allowed = allowed
        self.skip = 0
        self.sent = 0
        self.busy = 0.0

    def pack(self, data):
        # type: (bytes) -> tuple[int, bytes]
        if not self.allowed or self.skip > 0:
            self.skip -= 1
            return PLAIN, data
        before = time.time()
        packed = zlib.compress(data, 1)
        spent = time.time() - before
        if len(packed) >= len(data) or not self.pays(len(data) - len(packed), spent):
            self.skip = self.INTERVAL
            return PLAIN, data
        return ZLIB, packed

    def pays(self, saved, spent):
        # type: (int, float) -> bool
        """Whether sending `saved` bytes would have taken longer than `spent` seconds, as the link is now."""
        sent, busy = self.link.sent - self.sent, self.link.busy - self.busy
        if sent > 16 * SEGMENT:
            self.sent, self.busy = self.link.sent, self.link.busy
        return sent > 0 and busy / sent * saved > spent


def pieces(extents, most):
    # type: (list[tuple[int, int]], int) -> Iterator[tuple[int, int]]
    """The extents cut at every multiple of `most` bytes."""
    for offset, length in extents:
        end = offset + length
        at = offset
        while at < end:
            size = min(end, (at // most + 1) * most) - at
            yield at, size
            at += size


def known_hashes():
    # type: () -> dict[str, Callable[[bytes], bytes]]
    """The hash functions of this Python: some are missing from old ones, some are forbidden by policy."""
    found = {}  # type: dict[str, Callable[[bytes], bytes]]
    blake2b = getattr(hashlib, "blake2b", None)
    if blake2b is not None:
        found["blake2b"] = lambda data: blake2b(data, digest_size=32).digest()
    for name in ("sha256", "sha1", "md5"):
        try:
            hashlib.new(name, b"")
        except ValueError:
            continue
        found[name] = by_name(name)
    return found


def by_name(name):
    # type: (str) -> Callable[[bytes], bytes]
    return lambda data: hashlib.new(name, data).digest()


HASHES = known_hashes()


def describe(path, signature):
    # type: (bytes, bool) -> dict[str, Any]
    """What a path is: kind, size, sector size, numbers, identity, signature."""
    name = path.decode("utf-8", "replace")
    try:
        status = os.stat(path)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise Problem("usage", name, "is neither a file nor a block device", "name a volume or an image")
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Problem("usage", name, "cannot be opened: " + os.strerror(error.errno or 0), "check the path")
    try:
        size, sector, number = status.st_size, 512, (status.st_dev, status.st_ino)
        block = stat.S_ISBLK(status.st_mode)
        if block:
            size = os.lseek(fd, 0, os.SEEK_END)
            sector = struct.unpack("i", fcntl.ioctl(fd, BLKSSZGET, b"\0\0\0\0"))[0]
            number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    finally:
        os.close(fd)
    return {
        "kind": "block" if block else "file",
        "size": size,
        "sector_size": sector,
        "number": number,
        "identity": identity(name, status, block)[:1024],
        "signature": probe(path) if signature else None,
    }


def guard(path, found, start):
    # type: (bytes, dict[str, Any], dict[str, Any]) -> None
    """Refuse a target that the pass does not fit into, or that somebody uses or keeps something on."""
    name, offset, size = path.decode("utf-8", "replace"), start["target_offset"], start["size"]
    if offset % max(512, found["sector_size"]):
        raise Problem("refused", name, "starts within a sector at %d" % offset, "", "alignment")
    if offset + size > found["size"]:
        cause = "has %d bytes; offset and size need %d" % (found["size"], offset + size)
        raise Problem("refused", name, cause, "name a larger target, or grow it", "size")
    if start.get("dry_run"):
        return
    overrides = start.get("overrides") or ()
    for refusal, user in uses(path, found):
        if refusal not in overrides:
            raise Problem("refused", name, "is in use: " + user, RELEASE, refusal)
    if not start.get("trusted"):
        guard_signatures(path, found["size"], start, overrides)


def guard_signatures(path, whole, start, overrides):
    # type: (bytes, int, dict[str, Any], Any) -> None
    known = [dict(mark) for mark in start.get("known") or ()]
    offset, size = start["target_offset"], start["size"]
    for at, length in ((offset, size), (0, whole)):
        found = probe(path, at, length)
        if found is None or found in known or (found["is_table"] and at < offset):
            continue
        refusal = "lvm" if found["type"].startswith("LVM") else "signature"
        refusal = "md" if found["type"].endswith("_raid_member") else refusal
        if refusal not in overrides:
            cause = "already holds %s %s at %d, which is not the source's" % (
                found["type"],
                found["uuid"],
                at,
            )
            way_out = "check that this is the right target; knowing better, --override " + refusal
            raise Problem("refused", path.decode("utf-8", "replace"), cause, way_out, refusal)


def uses(path, found):
    # type: (bytes, dict[str, Any]) -> Iterator[tuple[str, str]]
    """Who uses a target, as (guard, words): what O_EXCL notices too, by name; and what it does not."""
    for table, refusal in (("/proc/mounts", "mounted"), ("/proc/swaps", "swap")):
        for line in lines(table):
            used = unescaped(line.split()[0])
            if used.startswith("/") and number_of(used) == found["number"]:
                yield refusal, refusal + ": " + line
    for served in entries(BACKENDS):
        numbers = "".join(lines("%s/%s/physical_device" % (BACKENDS, served))).split(":")
        if served.startswith("vbd-") and [int(part or "0", 16) for part in numbers] == list(found["number"]):
            yield "domain", "the disk of Xen domain %s" % served.split("-")[1]
    for name in entries("/sys/block"):
        backing = "".join(lines("/sys/block/%s/loop/backing_file" % name))
        if backing and number_of(backing) == found["number"]:
            yield "held", "attached to /dev/" + name
    for process in entries("/proc"):
        folder = "/proc/%s/fd/" % process
        if process.isdigit() and int(process) != os.getpid():
            for fd in entries(folder):
                if is_written_through(folder + fd, path, found):
                    yield "open", "open for writing in process " + process


def unescaped(field):
    # type: (str) -> str
    """A path as the kernel writes it in its tables: space, tab, newline and backslash as octal."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), field)


def is_written_through(fd, path, found):
    # type: (str, bytes, dict[str, Any]) -> bool
    try:
        link = os.readlink(fd)
        # Only what looks right is asked for its status: that may block on a dead network file system.
        name = os.path.basename(os.path.realpath(path)).decode("utf-8", "replace")
        if not (link.startswith("/dev/") if found["kind"] == "block" else link.endswith("/" + name)):
            return False
        # The link's own mode is that of the descriptor.
        return number_of(fd) == found["number"] and bool(os.lstat(fd).st_mode & stat.S_IWUSR)
    except (OSError, UnicodeError):
        # The process or the descriptor is gone.
        return False


def number_of(path):
    # type: (str | bytes) -> tuple[int, int] | None
    """What tells a file or device from every other."""
    try:
        status = os.stat(path)
    except (OSError, UnicodeError):
        return None
    if stat.S_ISBLK(status.st_mode):
        return os.major(status.st_rdev), os.minor(status.st_rdev)
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def entries(folder):
    # type: (str) -> list[str]
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def lines(path):
    # type: (str) -> list[str]
    try:
        with open(path) as text:
            return text.read().splitlines()
    except (IOError, OSError, ValueError):
        return []


def stamp(device, found):
    # type: (Device, dict[str, Any]) -> str
    """What changes with every write to a target, as history.py has it."""
    os.fsync(device.file.fileno())
    if found["kind"] == "file":
        status = os.fstat(device.file.fileno())
        times = [getattr(status, name + "_ns", getattr(status, name)) for name in ("st_mtime", "st_ctime")]
        return "%r/%r" % tuple(times)
    node = SYSFS % found["number"]
    if os.path.exists(node + "partition"):
        node = os.path.realpath(node) + "/../"
    counts = "".join(lines(node + "stat")).split()
    if not counts or not boot():
        # Not known: another one each time, so that no digest file is believed.
        return "unknown/%s" % "".join(["%02x" % part for part in bytearray(os.urandom(16))])
    written = [counts[field] for field in WRITTEN if field < len(counts)]
    return "/".join([boot(), "".join(lines(node + "diskseq"))] + written)


def identity(name, status, block):
    # type: (str, os.stat_result, bool) -> str
    """What the device is called for good."""
    if not block:
        return "file %s inode %d" % (os.path.realpath(name), status.st_ino)
    node = SYSFS % (os.major(status.st_rdev), os.minor(status.st_rdev))
    for attribute in ("dm/uuid", "md/uuid", "wwid", "device/wwid", "serial", "device/serial"):
        try:
            with open(node + attribute) as text:
                value = text.read().strip()
        except (IOError, OSError, ValueError):
            continue
        if value:
            return "%s %s" % (attribute, value)
    return "device %s" % os.path.realpath(name)


def probe(path, offset=0, size=None):
    # type: (bytes, int, int | None) -> dict[str, Any] | None
    """What blkid finds in a range; None when it finds nothing, or is not there or too old to ask."""
    span = [] if size is None else ["-O", str(offset), "-S", str(size)]
    path_of_root = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    environment = dict(os.environ, LC_ALL="C", PATH=path_of_root)
    try:
        blkid = subprocess.Popen(
            ["blkid", "-p", "-o", "export"] + span + [path],
            stdin=open(os.devnull),
            stdout=subprocess.PIPE,
            stderr=open(os.devnull, "w"),
            env=environment,
        )
    except OSError:
        return None
    text = blkid.communicate()[0].decode("utf-8", "replace")
    if blkid.returncode == 8:
        return {"type": "ambivalent", "uuid": "", "is_table": False}
    found = dict(re.findall("^([A-Z]+)=(.{0,64})$", text, re.MULTILINE))
    if "TYPE" in found:
        return {"type": found["TYPE"], "uuid": found.get("UUID", ""), "is_table": False}
    if "PTTYPE" in found:
        return {"type": found["PTTYPE"], "uuid": found.get("PTUUID", ""), "is_table": True}
    return None


def checked(start):
    # type: (dict[str, Any]) -> dict[str, Any]
    """A start whose numbers are possible."""
    block = start.get("block_size")
    if not isinstance(block, int) or not SMALLEST_BLOCK <= block <= LARGEST_BLOCK or block & (block - 1):
        raise violation("blocks of %r bytes" % (block,))
    if start.get("hash") not in HASHES:
        raise violation("a hash that was not offered")
    for field in ("size", "target_offset"):
        if not is_count(start.get(field), END_OF_OFFSETS):
            raise violation("a %s that is no number" % field)
    return start


def receive_extents(link, start):
    # type: (Link, dict[str, Any]) -> list[tuple[int, int]]
    """The extents of the pass: whole blocks inside the range, sorted, disjoint."""
    count, size, block = start.get("extents"), start["size"], start["block_size"]
    if count is None:
        return [(0, size)] if size else []
    if not isinstance(count, int) or not 0 <= count <= MOST_EXTENTS:
        raise violation("%r extents" % (count,))
    extents = []  # type: list[tuple[int, int]]
    last = 0
    while len(extents) < count:
        kind, length, _, number = link.receive()
        if kind == ALIVE and not length:
            continue
        if kind != EXTENTS or not 0 < number <= min(count - len(extents), 4096) or length != number * 16:
            raise violation("a frame of type %d among extents" % kind)
        numbers = struct.unpack(">%dQ" % (number * 2), link.take(length))
        for offset, length in zip(numbers[::2], numbers[1::2]):
            end = offset + length
            if offset < last or length < 1 or end > size or offset % block or (end % block and end != size):
                raise violation("an extent of %d bytes at %d" % (length, offset))
            extents.append((offset, length))
            last = end
    return extents


def boot():
    # type: () -> str
    try:
        with open("/proc/sys/kernel/random/boot_id") as text:
            return text.read().strip()
    except (IOError, OSError):
        return ""


def converse(link):
    # type: (Link) -> None
    """One pass, from greeting to farewell."""
    link.write(GREETING)
    link.say(
        HELLO,
        {
            "protocol": PROTOCOL,
            "hashes": sorted(HASHES),
            "codecs": ["zlib"],
            "roles": list(ROLES),
            "boot": boot(),
        },
    )
    if link.take(len(GREETING)) != GREETING:
        raise violation("it does not begin with a greeting")
    ends = []  # type: list[Scan | Applying]
    spawn(lambda: link.beat(lambda: ends[0].moment() if ends else (0, 0)))
    if link.expect(HELLO).get("protocol") != PROTOCOL:
        raise violation("it speaks another protocol")
    job = link.expect(JOB)
    if job.get("role") not in ROLES or not hasattr(job.get("path"), "encode"):
        raise violation("a job that is none")
    serve = serve_source if job["role"] == "source" else serve_target
    serve(link, job, ends)


def serve_source(link, job, ends):
    # type: (Link, dict[str, Any], list[Scan | Applying]) -> None
    path = job["path"].encode("utf-8")
    device = describe(path, bool(job.get("signature")))
    origin = job.get("origin")
    if origin is not None and hasattr(origin, "encode"):
        # A snapshot is known by the volume that it was made of.
        device["identity"] = describe(origin.encode("utf-8"), False)["identity"]
    link.say(DEVICE, device)
    start = checked(link.expect(START))
    if start["size"] > device["size"]:
        cause = "has %d bytes, not %d" % (device["size"], start["size"])
        raise Problem("refused", "the source", cause, "", "size")
    extents = receive_extents(link, start)
    limit(link, start)
    scan = Scan(link, Device(path, is_direct(start, device)), start, extents)
    ends.append(scan)
    link.say(READY, {"identity": device["identity"]})
    listener = spawn(scan.listen)
    scan.run()
    listener.join()
    if scan.told.failure is not None:
        raise scan.told.failure


def serve_target(link, job, ends):
    # type: (Link, dict[str, Any], list[Scan | Applying]) -> None
    path = job["path"].encode("utf-8")
    found = describe(path, False)
    before = Device(path, found["kind"] == "block")
    found["stamp"] = stamp(before, found)
    link.say(DEVICE, found)
    start = checked(link.expect(START, lambda offset, size: serve_read(link, before, found, offset, size)))
    extents = receive_extents(link, start)
    limit(link, start)
    guard(path, found, start)
    aligned = start["target_offset"] % mmap.PAGESIZE == 0 or found["kind"] == "block"
    target = Target(path, aligned and is_direct(start, found), start, found["kind"] == "block")
    now = "" if target.out is None else stamp(target, found)
    if number_of(path) != found["number"] or (now not in ("", found["stamp"]) and "unknown" not in now):
        cause = "was written or replaced by somebody else since the pass began"
        raise Problem("refused", target.name, cause, "find out who writes to it, then try again", "changed")
    applying = Applying(link, target, start, extents)
    ends.append(applying)
    link.say(READY, {"identity": found["identity"], "stamp": now})
    spawn(applying.tell)
    applying.run()
    link.say(DONE, applying.done("" if target.out is None else stamp(target, found)))


def serve_read(link, device, found, offset, size):
    # type: (Link, Device, dict[str, Any], int, int) -> None
    """Bytes of the target for the near end, before the pass begins."""
    if not 0 < size <= LARGEST_READ or offset + size > found["size"]:
        raise violation("a read of %d bytes at %d" % (size, offset))
    first = offset - offset % mmap.PAGESIZE
    data = device.read(first, offset + size - first)[offset - first :]
    link.send(BYTES, (data,), offset, size)


def limit(link, start):
    # type: (Link, dict[str, Any]) -> None
    rate = start.get("bytes_per_second")
    link.rate = int(rate) if rate is not None and is_count(rate, END_OF_OFFSETS) else 0


def is_direct(start, found):
    # type: (dict[str, Any], dict[str, Any]) -> bool
    return not start.get("cache") if found["kind"] == "block" else bool(start.get("direct"))


def spawn(work):
    # type: (Callable[[], None]) -> threading.Thread
    thread = threading.Thread(target=quietly, args=(work,))
    thread.daemon = True
    thread.start()
    return thread


def quietly(work):
    # type: (Callable[[], None]) -> None
    try:
        work()
    except Gone:
        # The thread that reads notices it too, and ends the program.
        pass


def main(read_fd=0, write_fd=1):
    # type: (int, int) -> int
    """Serve one pass on the standard streams; errors are the near end's to show. The exit status."""
    link = Link(read_fd, write_fd)
    try:
        converse(link)
    except Gone:
        return 1
    except Problem as problem:
        tell(link, problem)
        return 1
    except MemoryError:
        tell(link, Problem("failed", "the far end", "is out of memory", "use a larger block size"))
        return 1
    return 0


def tell(link, problem):
    # type: (Link, Problem) -> None
    try:
        link.say(ERROR, problem.fields)
    except Gone:
        pass


if __name__ == "__main__":
    # Not sys.exit: threads that wait for the near end must not keep the program.
    os._exit(main())
