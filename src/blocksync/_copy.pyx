# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The native core: read a segment, hash or compare its blocks, write what changed. GIL released throughout.

A `Copy` is one pass over one range. Any number of threads call `work()` on it; each claims the next
segment, so that several reads are in flight, and every byte that is hashed is the byte that is written:
a segment is read once, into one buffer.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EINTR, EIO, ENOMEM, ENXIO, errno
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from typing import NamedTuple

from blocksync._memory cimport Held, all_zero, is_expected


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t length)

cdef extern from "<unistd.h>" nogil:
    ssize_t c_pread "pread"(int fd, void *data, size_t length, int64_t offset)
    ssize_t c_pwrite "pwrite"(int fd, const void *data, size_t length, int64_t offset)
    int64_t c_lseek "lseek"(int fd, int64_t offset, int whence)
    int SEEK_DATA
    int SEEK_HOLE

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t c_preadv2 "preadv2"(int fd, const iovec *parts, int count, int64_t offset, int flags)
    int RWF_NOWAIT

cdef extern from "<fcntl.h>" nogil:
    int c_fallocate "fallocate"(int fd, int mode, int64_t offset, int64_t length)
    int FALLOC_FL_KEEP_SIZE
    int FALLOC_FL_PUNCH_HOLE
    int FALLOC_FL_ZERO_RANGE
    int c_sync_file_range "sync_file_range"(int fd, int64_t offset, int64_t length, unsigned int flags)
    unsigned int SYNC_FILE_RANGE_WRITE

cdef extern from "clock.h" nogil:
    int64_t monotonic_ns()
    void sleep_ns(int64_t ns)

cdef extern from *:
    """
    #include <stdint.h>

    #define atomic_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
    #define atomic_get(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define atomic_set(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define atomic_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_RELAXED)
    """
    int64_t atomic_add(int64_t *p, int64_t v) nogil
    int64_t atomic_get_i64 "atomic_get"(int64_t *p) nogil
    int atomic_get(int *p) nogil
    void atomic_set(int *p, int v) nogil
    void atomic_or(uint8_t *p, uint8_t v) nogil

cdef extern from "xxh3.h" nogil:
    ctypedef void (*xxh3_fn)(const void *data, size_t length, unsigned char *out) noexcept nogil
    xxh3_fn xxh3_best()

cdef xxh3_fn xxh3 = xxh3_best()

cdef enum:
    XXH3_SIZE = 16
    WIDEST_DIGEST = 64
    PAGE = 4096
    # Below this a run of zeros is cheaper to write than to punch: each hole is an extent in the file system.
    HOLE_WORTH = 65536
    # How long a worker that keeps to a rate sleeps before it looks whether it was stopped.
    NAP_NS = 100_000_000

cdef enum Step:
    READ_SOURCE = 1
    READ_TARGET = 2
    WRITE_TARGET = 3
    MEMORY = 4
    CALLBACK = 5

# What is known of the target's bytes of one segment.
cdef enum TargetState:
    UNREAD
    HELD
    HOLE
    UNKNOWN

STEPS = {
    READ_SOURCE: "source read",
    READ_TARGET: "target read",
    WRITE_TARGET: "target write",
    MEMORY: "memory",
    CALLBACK: "callback",
}


class Fault(NamedTuple):
    """The first thing that went wrong: which step, at which byte offset of that device, with which errno.

    errno 0 means that the device ended before `offset`.
    """

    step: str
    offset: int
    errno: int


class Counters(NamedTuple):
    """Bytes so far. `done` counts segments whose writes were issued; durable is the caller's business."""

    done: int
    source_read: int
    target_read: int
    changed: int
    written: int
    zeroed: int
    learned: int


cdef struct Span:
    int64_t start
    int64_t end


cdef struct Side:
    int fd
    int align
    int64_t base
    bint holes
    Span hole
    Span data


cdef struct Desk:
    # One worker's own memory, reused for every segment it claims.
    uint8_t *source
    uint8_t *target
    uint8_t *digests


cdef struct Segment:
    int64_t start
    int64_t length
    bint source_hole
    const uint8_t *data
    TargetState target
    int64_t learned


cdef void *aligned(size_t length) noexcept nogil:
    cdef void *memory = NULL
    if posix_memalign(&memory, PAGE, length) != 0:
        return NULL
    return memory


cdef int64_t read_fully(int fd, uint8_t *into, int64_t need, int64_t ask, int64_t offset, int align) noexcept nogil:
    """Read at least `need` of `ask` bytes. Returns `need`, or the bytes got before the end or the error (errno)."""
    cdef int64_t got = 0
    cdef ssize_t count
    while got < need:
        count = c_pread(fd, into + got, <size_t>(ask - got), offset + got)
        if count < 0:
            if errno == EINTR:
                continue
            return got
        if count == 0:
            (&errno)[0] = 0
            return got
        if got + count < need:
            # A direct read must go on from an aligned offset.
            count -= count % align
            if count == 0:
                (&errno)[0] = EIO
                return got
        got += count
    return need


cdef int64_t write_fully(int fd, const uint8_t *data, int64_t length, int64_t offset) noexcept nogil:
    """Write `length` bytes. Returns them, or those written before the error (errno)."""
    cdef int64_t put = 0
    cdef ssize_t count
    while put < length:
        count = c_pwrite(fd, data + put, <size_t>(length - put), offset + put)
        if count < 0:
            if errno == EINTR:
                continue
            return put
        if count == 0:
            (&errno)[0] = EIO
            return put
        put += count
    return put


cdef class Copy:
    """One pass over `[0, size)` of a source into `[target_offset, target_offset + size)` of a target.

    `digests` is a writable buffer of `digest_size` bytes a block (XXH3-128 in canonical form, or what `hasher`
    returns for a memoryview of a block; all zero means "not known"): what the target is known to hold. It is
    updated as blocks are found equal or written.
    `changed` is a zeroed writable buffer of one bit a block (bit i of byte i//8), set for blocks that differ.
    `extents` is an optional buffer of int64 pairs (offset, length), block-aligned, sorted, disjoint: the
    ranges to look at instead of everything. `gate` is called once, by one worker, before the first write;
    when it raises, nothing is written. `source_align` and `target_align` are 1 for a descriptor that reads
    through the page cache, else the sector size that its direct I/O needs. `tail_fd` writes what is no
    multiple of that. `bytes_per_second` bounds what is read of the source and written together (0: no bound). `compare` false writes blocks that are not known without reading the target.
    """

    cdef:
        Side source
        Side target
        int tail_fd
        int64_t size
        int64_t block
        int64_t segment
        int64_t blocks
        bint compare
        bint dry
        bint punch_fails
        Held held_digests
        Held held_changed
        Held held_extents
        uint8_t *table
        uint8_t *changed_bits
        const int64_t *extents
        int64_t extents_count
        int64_t extent
        int64_t position
        pthread_mutex_t lock
        pthread_mutex_t gate_lock
        int gate_open
        object gate
        object hasher
        object raised
        int64_t width
        int64_t rate
        int64_t due
        int halted
        int fault_step
        int fault_errno
        int64_t fault_offset
        uint8_t *zeros
        uint8_t zero_digest[XXH3_SIZE]
        int64_t done
        int64_t source_read
        int64_t target_read
        int64_t changed
        int64_t written
        int64_t zeroed
        int64_t learned

    def __cinit__(
        self,
        *,
        int source_fd,
        int target_fd,
        int tail_fd,
        int64_t size,
        int64_t block_size,
        int64_t segment_size,
        changed,
        gate,
        int64_t target_offset=0,
        int source_align=1,
        int target_align=1,
        bint source_holes=False,
        bint target_holes=False,
        bint compare=True,
        bint dry_run=False,
        digests=None,
        hasher=None,
        int64_t digest_size=XXH3_SIZE,
        extents=None,
        int64_t bytes_per_second=0,
    ):
        pthread_mutex_init(&self.lock, NULL)
        pthread_mutex_init(&self.gate_lock, NULL)
        if size < 0 or block_size <= 0 or segment_size <= 0 or segment_size % block_size:
            raise ValueError("size, block_size and segment_size do not fit each other")
        if not 1 <= digest_size <= WIDEST_DIGEST or (hasher is None and digest_size != XXH3_SIZE):
            raise ValueError("digest_size is not the hash function's")
        if source_align < 1 or target_align < 1 or block_size % source_align or block_size % target_align:
            raise ValueError("block_size must be a multiple of both alignments")
        self.source = Side(source_fd, source_align, 0, source_holes, Span(0, 0), Span(0, 0))
        self.target = Side(target_fd, target_align, target_offset, target_holes, Span(0, 0), Span(0, 0))
        self.tail_fd = tail_fd
        self.size = size
        self.block = block_size
        self.segment = segment_size
        self.blocks = (size + block_size - 1) // block_size
        self.compare = compare
        self.dry = dry_run
        self.gate = gate
        self.hasher = hasher
        self.width = digest_size
        self.rate = bytes_per_second
        self._take_buffers(digests, changed, extents)
        self.zeros = <uint8_t *>aligned(<size_t>segment_size)
        if self.zeros == NULL:
            raise MemoryError
        memset(self.zeros, 0, <size_t>segment_size)
        xxh3(self.zeros, <size_t>block_size, self.zero_digest)

    cdef int _take_buffers(self, digests, changed, extents) except -1:
        self.held_changed = Held(changed, writable=True)
        if self.held_changed.length < (self.blocks + 7) // 8:
            raise ValueError("changed is smaller than one bit a block")
        self.changed_bits = self.held_changed.data
        if digests is not None:
            self.held_digests = Held(digests, writable=True)
            if self.held_digests.length < self.blocks * self.width:
                raise ValueError("digests is smaller than one digest a block")
            self.table = self.held_digests.data
        if extents is not None:
            self.held_extents = Held(extents)
            if self.held_extents.length % 16:
                raise ValueError("extents is no array of int64 pairs")
            self.extents = <const int64_t *>self.held_extents.data
            self.extents_count = self.held_extents.length // 16
            self._check_extents()
        return 0

    cdef int _check_extents(self) except -1:
        cdef int64_t i, start, length, last = 0
        for i in range(self.extents_count):
            start = self.extents[2 * i]
            length = self.extents[2 * i + 1]
            if start < last or start % self.block or length <= 0 or length > self.size - start:
                raise ValueError("extents are not sorted, disjoint, aligned and inside the range")
            last = start + length
            if last % self.block and last != self.size:
                raise ValueError("extents do not end on a block")
        return 0

    def __dealloc__(self):
        free(self.zeros)
        pthread_mutex_destroy(&self.lock)
        pthread_mutex_destroy(&self.gate_lock)

    def work(self):
        """Claim and finish segments until none is left, `stop()` is called or something fails."""
        cdef Desk desk
        cdef int64_t start, length
        with nogil:
            if self._set_up(&desk) == 0:
                while self._claim(&start, &length):
                    if self._finish(&desk, start, length) < 0:
                        break
            else:
                self._fail(MEMORY, 0, ENOMEM)
            free(desk.source)
            free(desk.target)
            free(desk.digests)

    def stop(self):
        """Let each worker finish the segment it is in, and claim no other."""
        atomic_set(&self.halted, 1)

    def counters(self):
        """A snapshot of the byte counters; may be called while workers run."""
        return Counters(
            atomic_get_i64(&self.done),
            atomic_get_i64(&self.source_read),
            atomic_get_i64(&self.target_read),
            atomic_get_i64(&self.changed),
            atomic_get_i64(&self.written),
            atomic_get_i64(&self.zeroed),
            atomic_get_i64(&self.learned),
        )

    def fault(self):
        """The first failure, or None. An exception that `gate` or `hasher` raised is raised here."""
        if self.raised is not None:
            raise self.raised
        if self.fault_step == 0:
            return None
        return Fault(STEPS[self.fault_step], self.fault_offset, self.fault_errno)

    cdef int _set_up(self, Desk *desk) noexcept nogil:
        desk.source = <uint8_t *>aligned(<size_t>self.segment)
        desk.target = <uint8_t *>aligned(<size_t>self.segment)
        desk.digests = <uint8_t *>calloc(<size_t>(self.segment // self.block), <size_t>self.width)
        if desk.source == NULL or desk.target == NULL or desk.digests == NULL:
            return -1
        return 0

    cdef int _fail(self, int step, int64_t offset, int error) noexcept nogil:
        pthread_mutex_lock(&self.lock)
        # Of workers that meet the same trouble, the first in time may be further on.
        if self.fault_step == 0 or (self.fault_step == step and offset < self.fault_offset):
            self.fault_step = step
            self.fault_offset = offset
            self.fault_errno = error
        pthread_mutex_unlock(&self.lock)
        atomic_set(&self.halted, 1)
        return -1

    cdef bint _claim(self, int64_t *start, int64_t *length) noexcept nogil:
        cdef int64_t end
        if atomic_get(&self.halted):
            return False
        pthread_mutex_lock(&self.lock)
        end = self.size
        if self.extents != NULL:
            while self.extent < self.extents_count:
                end = self.extents[2 * self.extent] + self.extents[2 * self.extent + 1]
                if self.position < end:
                    break
                self.extent += 1
            if self.extent == self.extents_count:
                end = self.position
            elif self.position < self.extents[2 * self.extent]:
                self.position = self.extents[2 * self.extent]
        start[0] = self.position
        # Segments start at multiples of their size, so that threads never share a byte of `changed`.
        length[0] = min(end, (self.position // self.segment + 1) * self.segment) - self.position
        self.position += length[0]
        pthread_mutex_unlock(&self.lock)
        return length[0] > 0

    cdef bint _in_hole(self, Side *side, int64_t start, int64_t length) noexcept nogil:
        """Whether the file system says that the whole segment is a hole."""
        cdef int64_t first = side.base + start
        cdef int64_t last = first + length
        cdef int64_t data
        cdef bint hole = False
        if not side.holes:
            return False
        pthread_mutex_lock(&self.lock)
        if first >= side.hole.start and last <= side.hole.end:
            hole = True
        elif not (first >= side.data.start and first < side.data.end):
            data = c_lseek(side.fd, first, SEEK_DATA)
            if data < 0 and errno == ENXIO:
                side.hole = Span(first, side.base + self.size)
                hole = True
            elif data < 0:
                # The file system cannot tell (EINVAL): everything counts as data.
                side.holes = False
            elif data >= last:
                side.hole = Span(first, data)
                hole = True
            else:
                side.data = Span(first, c_lseek(side.fd, data, SEEK_HOLE))
        pthread_mutex_unlock(&self.lock)
        return hole

    cdef int _read(self, Side *side, uint8_t *into, int64_t start, int64_t length, int step) noexcept nogil:
        cdef int64_t ask = (length + side.align - 1) // side.align * side.align
        cdef int64_t got = read_fully(side.fd, into, length, ask, side.base + start, side.align)
        if got < length:
            return self._fail(step, side.base + start + got, errno)
        return 0

    cdef void _pay(self, int64_t length) noexcept nogil:
        """Wait until `length` more bytes are within the rate."""
        cdef int64_t now, until
        if self.rate == 0:
            return
        pthread_mutex_lock(&self.lock)
        now = monotonic_ns()
        # What was not used in the past is not saved up.
        until = max(now, self.due)
        self.due = until + <int64_t>(<double>length / <double>self.rate * 1e9)
        pthread_mutex_unlock(&self.lock)
        while now < until and not atomic_get(&self.halted):
            sleep_ns(min(until - now, NAP_NS))
            now = monotonic_ns()

    cdef int _finish(self, Desk *desk, int64_t start, int64_t length) noexcept nogil:
        """Read one segment, find the runs of blocks that differ, write them. -1 on failure."""
        cdef Segment segment = Segment(start, length, self._in_hole(&self.source, start, length), desk.source, UNREAD, 0)
        cdef int64_t at = 0, n, run = -1
        cdef bint zero, run_zero = False
        cdef int differs
        if segment.source_hole:
            segment.data = self.zeros
        else:
            self._pay(length)
            if self._read(&self.source, desk.source, start, length, READ_SOURCE) < 0:
                return -1
            atomic_add(&self.source_read, length)
        if self.table != NULL and self._hash(desk, &segment) < 0:
            return -1
        while at < length:
            n = min(self.block, length - at)
            differs = self._differs(desk, &segment, at, n)
            if differs < 0:
                return -1
            zero = differs and (segment.source_hole or all_zero(segment.data + at, n))
            if run >= 0 and (not differs or zero != run_zero):
                if self._write_run(desk, &segment, run, at, run_zero) < 0:
                    return -1
                run = -1
            if differs and run < 0:
                run = at
                run_zero = zero
            at += n
        if run >= 0 and self._write_run(desk, &segment, run, length, run_zero) < 0:
            return -1
        atomic_add(&self.learned, segment.learned)
        atomic_add(&self.done, length)
        return 0

    cdef int _hash(self, Desk *desk, Segment *segment) noexcept nogil:
        """The digest of every block of a segment."""
        cdef int64_t at = 0, n
        cdef uint8_t *digest = desk.digests
        if self.hasher is not None:
            with gil:
                return self._call_hasher(desk, segment)
        while at < segment.length:
            n = min(self.block, segment.length - at)
            if segment.source_hole and n == self.block:
                memcpy(digest, self.zero_digest, XXH3_SIZE)
            else:
                xxh3(segment.data + at, <size_t>n, digest)
            digest += XXH3_SIZE
            at += n
        return 0

    cdef int _call_hasher(self, Desk *desk, Segment *segment) noexcept:
        cdef int64_t at = 0, n
        cdef uint8_t *digest = desk.digests
        cdef bytes made
        try:
            while at < segment.length:
                n = min(self.block, segment.length - at)
                made = self.hasher(PyMemoryView_FromMemory(<char *>segment.data + at, n, PyBUF_READ))
                if len(made) != self.width:
                    raise ValueError("the hash function gave a digest of another length")
                memcpy(digest, <const char *>made, <size_t>self.width)
                digest += self.width
                at += n
        except BaseException as error:
            self.raised = error
            return self._fail(CALLBACK, 0, 0)
        return 0

    cdef int _differs(self, Desk *desk, Segment *segment, int64_t at, int64_t n) noexcept nogil:
        """Whether one block has to be written: 1, 0, or -1 on failure."""
        cdef uint8_t *digest
        cdef uint8_t *known
        cdef int differs
        if self.table == NULL:
            return self._differs_from_target(desk, segment, at, n)
        digest = desk.digests + at // self.block * self.width
        known = self.table + (segment.start + at) // self.block * self.width
        if not all_zero(known, self.width):
            return memcmp(known, digest, <size_t>self.width) != 0
        differs = self._differs_from_target(desk, segment, at, n)
        if differs == 0 and not self.dry:
            memcpy(known, digest, <size_t>self.width)
            segment.learned += 1
        return differs

    cdef int _differs_from_target(self, Desk *desk, Segment *segment, int64_t at, int64_t n) noexcept nogil:
        if segment.target == UNREAD:
            if self._in_hole(&self.target, segment.start, segment.length):
                segment.target = HOLE
            elif self.compare:
                if self._read(&self.target, desk.target, segment.start, segment.length, READ_TARGET) < 0:
                    return -1
                atomic_add(&self.target_read, segment.length)
                segment.target = HELD
            else:
                segment.target = UNKNOWN
        if segment.target == UNKNOWN:
            return 1
        if segment.target == HOLE:
            return not (segment.source_hole or all_zero(segment.data + at, n))
        return memcmp(segment.data + at, desk.target + at, <size_t>n) != 0

    cdef int _write_run(self, Desk *desk, Segment *segment, int64_t at, int64_t end, bint zero) noexcept nogil:
        """Write one run of changed blocks, and note what the target holds now."""
        cdef int64_t start = segment.start + at
        cdef int64_t length = end - at
        cdef int64_t first = start // self.block
        cdef int64_t count = (length + self.block - 1) // self.block
        cdef int64_t i
        atomic_add(&self.changed, length)
        for i in range(first, first + count):
            atomic_or(self.changed_bits + i // 8, <uint8_t>(1 << (i % 8)))
        if self.dry:
            return 0
        if self._open_gate() < 0:
            return -1
        if zero and self._punch(start, length):
            atomic_add(&self.zeroed, length)
        else:
            if self._held(desk, segment, at, length):
                if self._write_pages(segment.data + at, desk.target + at, start, length) < 0:
                    return -1
            elif self._write(segment.data + at, start, length) < 0:
                return -1
        if self.table != NULL:
            memcpy(
                self.table + first * self.width,
                desk.digests + at // self.block * self.width,
                <size_t>(count * self.width),
            )
            segment.learned += count
        return 0

    cdef bint _held(self, Desk *desk, Segment *segment, int64_t at, int64_t length) noexcept nogil:
        """Whether the target's bytes of a run are at hand, or in the page cache and now are. Never reads a device."""
        cdef iovec part
        cdef ssize_t count
        cdef int64_t got = 0
        if not self.compare or self.target.align > 1 or segment.target == HOLE:
            # Direct writes of single pages cost more than they save.
            return False
        while segment.target != HELD and got < length:
            part = iovec(desk.target + at + got, <size_t>(length - got))
            count = c_preadv2(
                self.target.fd, &part, 1, self.target.base + segment.start + at + got, RWF_NOWAIT
            )
            if count <= 0:
                return False
            got += count
        return True

    cdef int _write_pages(self, const uint8_t *data, const uint8_t *held, int64_t start, int64_t length) noexcept nogil:
        """Write only those pages of a run that differ from what the target holds."""
        cdef int64_t at = 0, run = -1
        cdef size_t n
        while at < length:
            n = <size_t>min(<int64_t>PAGE, length - at)
            if memcmp(data + at, held + at, n) != 0:
                if run < 0:
                    run = at
            elif run >= 0:
                if self._write(data + run, start + run, at - run) < 0:
                    return -1
                run = -1
            at += n
        if run >= 0:
            return self._write(data + run, start + run, length - run)
        return 0

    cdef bint _punch(self, int64_t start, int64_t length) noexcept nogil:
        """Make a hole, or let the device zero a range. False where that is not possible or not worth it."""
        cdef int64_t at = self.target.base + start
        if not self.compare and self.target.holes:
            # Overwriting a file as fast as it can be: a hole takes longer to make than zeros to write.
            return False
        if self.punch_fails or length < HOLE_WORTH or at % PAGE or length % PAGE:
            return False
        if self._fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length):
            return True
        if self._fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, length):
            return True
        # Whatever the reason, writing zeros is right too, and reports the error if it is a real one.
        self.punch_fails = True
        return False

    cdef bint _fallocate(self, int mode, int64_t at, int64_t length) noexcept nogil:
        while c_fallocate(self.target.fd, mode, at, length) != 0:
            if errno != EINTR:
                return False
        return True

    cdef int _write(self, const uint8_t *data, int64_t start, int64_t length) noexcept nogil:
        cdef int64_t tail = length % self.target.align
        cdef int64_t body = length - tail
        cdef int64_t offset = self.target.base + start
        cdef int64_t put = write_fully(self.target.fd, data, body, offset)
        if put < body:
            return self._fail(WRITE_TARGET, offset + put, errno)
        if tail:
            put = write_fully(self.tail_fd, data + body, tail, offset + body)
            if put < tail:
                return self._fail(WRITE_TARGET, offset + body + put, errno)
        atomic_add(&self.written, length)
        self._pay(length)
        return 0

    cdef int _open_gate(self) noexcept nogil:
        cdef int opened
        if atomic_get(&self.gate_open):
            return 0
        pthread_mutex_lock(&self.gate_lock)
        opened = self.gate_open
        if opened == 0 and not atomic_get(&self.halted):
            with gil:
                opened = self._call_gate()
            atomic_set(&self.gate_open, opened)
        pthread_mutex_unlock(&self.gate_lock)
        # Stopped before anything was written: the segment is not done, which is no fault.
        return 0 if opened else -1

    cdef int _call_gate(self) noexcept:
        try:
            self.gate()
        except BaseException as error:
            self.raised = error
            atomic_set(&self.halted, 1)
            return 0
        return 1


def start_writeback(int fd):
    """Let the kernel begin to write what its page cache holds for `fd`, without waiting for the disk.

    A hint, which promises nothing and reports nothing: fsync, which has less to do then, does both.
    """
    with nogil:
        c_sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE)


def xxh3_128(data):
    """XXH3-128 of a bytes-like object, in canonical form: 16 bytes."""
    cdef Held held = Held(data)
    cdef uint8_t out[XXH3_SIZE]
    with nogil:
        xxh3(held.data, <size_t>held.length, out)
    return (<char *>out)[:XXH3_SIZE]


def count_runs(bits, int64_t blocks):
    """How many runs of neighbouring set bits a bitmap of `blocks` bits has."""
    cdef Held held = Held(bits)
    cdef int64_t i = 0, runs = 0
    cdef int bit, last = 0
    if held.length < (blocks + 7) // 8:
        raise ValueError("bits is smaller than one bit a block")
    with nogil:
        while i < blocks:
            if i % 8 == 0 and held.data[i // 8] == 0:
                last = 0
                i += 8
                continue
            bit = held.data[i // 8] >> (i % 8) & 1
            runs += bit & ~last
            last = bit
            i += 1
    return runs


def mark_differences(left, right, int64_t length, int64_t block_size, bits, int64_t first):
    """Compare the first `length` bytes of two buffers by blocks; set bit `first + i` of `bits` where block i differs.

    Returns how many blocks differ.
    """
    cdef Held a = Held(left), b = Held(right), marks = Held(bits, writable=True)
    cdef int64_t at = 0, n, bit, found = 0
    if length < 0 or block_size <= 0:
        raise ValueError("length is not negative, block_size is above zero")
    bit = first + (length + block_size - 1) // block_size
    if a.length < length or b.length < length or first < 0 or marks.length < (bit + 7) // 8:
        raise ValueError("a buffer is smaller than what is compared")
    with nogil:
        while at < length:
            n = min(block_size, length - at)
            if memcmp(a.data + at, b.data + at, <size_t>n) != 0:
                bit = first + at // block_size
                marks.data[bit // 8] |= <uint8_t>(1 << (bit % 8))
                found += 1
            at += n
    return found


cdef void hash_into(const uint8_t *data, int64_t length, int64_t block, uint8_t *digests) noexcept nogil:
    """The XXH3-128 of each block, one after the other."""
    cdef int64_t at = 0
    while at < length:
        xxh3(data + at, <size_t>min(block, length - at), digests)
        digests += XXH3_SIZE
        at += block


def hash_blocks(data, int64_t length, int64_t block_size, digests, int64_t first):
    """XXH3-128 of each block of the first `length` bytes of a buffer, into 16-byte slots of a writable buffer from
    slot `first` on. Returns the number of blocks."""
    cdef Held held = Held(data), slots = Held(digests, writable=True)
    cdef int64_t blocks
    if length < 0 or block_size <= 0 or first < 0:
        raise ValueError("length, block_size and first are not negative, block_size is not zero")
    blocks = (length + block_size - 1) // block_size
    if held.length < length or slots.length // XXH3_SIZE < first + blocks:
        raise ValueError("a buffer is smaller than what is hashed")
    with nogil:
        hash_into(held.data, length, block_size, slots.data + first * XXH3_SIZE)
    return blocks


cdef struct Scan:
    # A device from `base` on, which is read into `data` and hashed into `digests`.
    int fd
    int align
    int64_t base
    int64_t block
    uint8_t *data
    uint8_t *digests


cdef bint look_at(const Scan *scan, int64_t offset, int64_t length, int64_t place) noexcept nogil:
    """Read and hash a range, to `place` of the memory. False when it cannot be read."""
    cdef int64_t ask = (length + scan.align - 1) // scan.align * scan.align
    if read_fully(scan.fd, scan.data + place, length, ask, scan.base + offset, scan.align) < length:
        return False
    hash_into(scan.data + place, length, scan.block, scan.digests + place // scan.block * XXH3_SIZE)
    return True


cdef bint has_unexpected(const Scan *scan, int64_t length, const uint8_t *expected) noexcept nogil:
    cdef int64_t slot, blocks = (length + scan.block - 1) // scan.block
    for slot in range(blocks):
        if not is_expected(scan.digests + slot * XXH3_SIZE, expected + slot * XXH3_SIZE, XXH3_SIZE):
            return True
    return False


def find_changed(
    int fd,
    int64_t base,
    int64_t offset,
    int64_t end,
    *,
    int align,
    int64_t block_size,
    int64_t piece,
    data,
    digests,
    expected,
):
    """Look for a block of `[offset, end)`, counted from byte `base` of a device, whose XXH3-128 is not the expected.

    `expected` has 16 bytes a block, from offset 0 on; zeros are never as expected. Pieces of so many bytes are read
    and hashed, each into the same memory: `data`, and 16 bytes a block of `digests`. From the first piece with such a
    block on, as much is read as `data` holds. `align` is 1, or the sector size that direct reads of the descriptor
    need. Returns (start, length) of what is in memory then; (`end`, 0) when every block is as expected; (start, -1)
    when something from there on cannot be read, which is for the caller to find out about.
    """
    cdef Held room = Held(data, writable=True), slots = Held(digests, writable=True), known = Held(expected)
    cdef Scan scan = Scan(fd, align, base, block_size, room.data, slots.data)
    cdef int64_t at = offset, length, rest, most, found = 0
    # A remainder by zero would end the process.
    if block_size <= 0 or piece <= 0 or align <= 0 or offset % block_size or piece % block_size or not 0 <= offset <= end:
        raise ValueError("offset, end, piece and block size do not fit each other")
    # Whole blocks, whole sectors.
    most = min(room.length, slots.length // XXH3_SIZE * block_size) // block_size * block_size
    if most < piece or block_size % align or known.length // XXH3_SIZE < (end + block_size - 1) // block_size:
        raise ValueError("a buffer is smaller than what is compared")
    with nogil:
        while at < end:
            length = min(piece, end - at)
            if not look_at(&scan, at, length, 0):
                found = -1
                break
            if has_unexpected(&scan, length, known.data + at // block_size * XXH3_SIZE):
                rest = min(most, end - at) - length
                found = length + rest
                if rest and not look_at(&scan, at + length, rest, length):
                    found = -1
                break
            at += length
    return at, found
