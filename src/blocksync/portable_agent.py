# Newer ways of writing this are what old hosts do not have.
# ruff: noqa: B904, B905, PLR0917, PTH116, PTH123, SIM105, SIM115, UP004, UP024, UP031
"""The far end of a pass where nothing is installed: a source, in one file, for Python 2.6 to 3.13.

It is sent over the channel to a loader (see remote/bootstrap.py), runs from memory and leaves nothing behind.
It needs the standard library alone, hashes with what hashlib has there, and speaks the protocol of
docs/wire.md with the native near end. It only ever reads devices: a target's guards need an installation.

Sizes and offsets are in bytes. Types stand in comments.
"""

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
EXTENTS = 16
DIGESTS, UNKNOWN, HOLE, KNOWN = range(32, 36)
DATA, ZEROS, DIFFERS = range(48, 51)
ALIVE, STOP, DURABLE = range(64, 67)
MESSAGES = (HELLO, JOB, START, DONE, ERROR)

PLAIN, ZLIB = 0, 3

LARGEST_MESSAGE = 65536
MOST_DIGESTS = 4096
MOST_BLOCKS = 65536
MOST_EXTENTS = 2**20
SEGMENT = 2**20
SMALLEST_BLOCK, LARGEST_BLOCK = 4096, 16 * 2**20

PATIENCE = 25.0
BEAT = 0.5
PIECE = 2**18

# <linux/fs.h>
BLKSSZGET = 0x1268
DIRECT = getattr(os, "O_DIRECT", 0)

SYSFS = "/sys/dev/block/%d:%d/"


class Problem(Exception):
    """What went wrong, for the near end: kind, thing, cause, way out."""

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
        self.heard = self.said = time.time()
        # Seconds that sending took so far: with `sent`, how fast the link takes bytes.
        self.busy = 0.0
        self.sent = 0
        self.rate = 0
        self.due = 0.0
        for fd in (read_fd, write_fd):
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)

    def send(self, kind, payload=(), offset=0, size=0, codec=PLAIN):
        # type: (int, tuple[bytes, ...], int, int, int) -> None
        length = sum(len(part) for part in payload)
        with self.lock:
            self.write(HEADER.pack(kind, codec, 0, length, offset, size))
            for part in payload:
                self.write(part)

    def say(self, kind, fields):
        # type: (int, dict[str, Any]) -> None
        self.send(kind, (json.dumps(fields).encode("ascii"),))

    def beat(self, moment):
        # type: (Callable[[], tuple[int, int]]) -> None
        while True:
            time.sleep(BEAT)
            if self.lock.acquire(False):
                try:
                    offset, size = moment()
                    self.write(HEADER.pack(ALIVE, PLAIN, 0, 0, offset, size))
                finally:
                    self.lock.release()

    def receive(self):
        # type: () -> tuple[int, int, int, int]
        """The next frame's type, payload length, offset and size."""
        kind, codec, zero, length, offset, size = HEADER.unpack(self.take(HEADER.size))
        if codec or zero:
            raise violation("a frame of type %d with codec %d and flags %d" % (kind, codec, zero))
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

    def expect(self, wanted):
        # type: (int) -> dict[str, Any]
        while True:
            kind, length, _, _ = self.receive()
            if kind == wanted:
                return self.message(length)
            if kind == ERROR:
                raise Gone("the near end gave up")
            if kind != ALIVE or length:
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
    """The source, open for reading. `direct` reads past the page cache."""

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


def probe(path):
    # type: (bytes) -> dict[str, Any] | None
    """What blkid finds on the device; None when it finds nothing, or is not there or too old to ask."""
    path_of_root = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    environment = dict(os.environ, LC_ALL="C", PATH=path_of_root)
    try:
        blkid = subprocess.Popen(
            ["blkid", "-p", "-o", "export", path],
            stdin=open(os.devnull),
            stdout=subprocess.PIPE,
            stderr=open(os.devnull, "w"),
            env=environment,
        )
    except OSError:
        return None
    text = blkid.communicate()[0].decode("utf-8", "replace")
    found = dict(re.findall("^([A-Z]+)=(.{0,64})$", text, re.MULTILINE))
    if "TYPE" in found:
        return {"type": found["TYPE"], "uuid": found.get("UUID", ""), "is_table": False}
    if "PTTYPE" in found:
        return {"type": found["PTTYPE"], "uuid": found.get("PTUUID", ""), "is_table": True}
    return None


def checked(start, size):
    # type: (dict[str, Any], int) -> dict[str, Any]
    """A start whose numbers are possible for a device of `size` bytes."""
    block = start.get("block_size")
    if not isinstance(block, int) or not SMALLEST_BLOCK <= block <= LARGEST_BLOCK or block & (block - 1):
        raise violation("blocks of %r bytes" % (block,))
    if start.get("hash") not in HASHES:
        raise violation("a hash that was not offered")
    # In Python 2, an int that is large is a long.
    if isinstance(start.get("size"), bool) or not hasattr(start.get("size"), "__index__"):
        raise violation("a size that is no number")
    if not 0 <= start["size"] <= size:
        raise Problem("refused", "the source", "has %d bytes, not %d" % (size, start["size"]), "", "size")
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
            "roles": ["source"],
            "boot": boot(),
        },
    )
    if link.take(len(GREETING)) != GREETING:
        raise violation("it does not begin with a greeting")
    scans = []  # type: list[Scan]
    spawn(lambda: link.beat(lambda: scans[0].moment() if scans else (0, 0)))
    if link.expect(HELLO).get("protocol") != PROTOCOL:
        raise violation("it speaks another protocol")
    job = link.expect(JOB)
    if job.get("role") != "source" or not hasattr(job.get("path"), "encode"):
        raise violation("a job that is no source's")
    path = job["path"].encode("utf-8")
    device = describe(path, bool(job.get("signature")))
    origin = job.get("origin")
    if origin is not None and hasattr(origin, "encode"):
        # A snapshot is known by the volume that it was made of.
        device["identity"] = describe(origin.encode("utf-8"), False)["identity"]
    link.say(DEVICE, device)
    start = checked(link.expect(START), device["size"])
    extents = receive_extents(link, start)
    rate = start.get("bytes_per_second")
    link.rate = rate if rate is not None and hasattr(rate, "__index__") and rate > 0 else 0
    direct = not start.get("cache") if device["kind"] == "block" else bool(start.get("direct"))
    scans.append(Scan(link, Device(path, direct), start, extents))
    link.say(READY, {"identity": device["identity"]})
    listener = spawn(scans[0].listen)
    scans[0].run()
    listener.join()
    if scans[0].told.failure is not None:
        raise scans[0].told.failure


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
